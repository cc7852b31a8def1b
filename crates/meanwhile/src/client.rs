//! `meanwhile submit`, `meanwhile jobs show` and `jobs retry`: a caller's view, over HTTP only.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::StatusCode;
use reqwest::header::LOCATION;
use serde_json::Value;

use crate::cli::SubmitArgs;
use crate::timeline::Timeline;

/// Between two looks at a job that is being followed.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);
/// One request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a request that found nobody, or a service that is not ready, is repeated while following.
const ATTEMPTS_MAX: u32 = 100;

/// `meanwhile submit`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn submit(args: SubmitArgs) -> anyhow::Result<ExitCode> {
    let body = input(&args.input)?;
    let client = client()?;
    let url = format!("{}/v1/flows/{}/jobs", args.api.url.trim_end_matches('/'), args.flow);
    let request = client.post(&url).header("content-type", "application/json").body(body);
    let job = accepted(request, args.key.as_deref(), &args.api.url).await?;
    if args.follow {
        return follow(&client, &args.api.url, &job).await;
    }
    println!("{job}");
    Ok(ExitCode::SUCCESS)
}

/// `meanwhile jobs retry`: prints the id of the job that runs now.
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn retry(url: &str, job: &str, key: Option<&str>, follow_it: bool) -> anyhow::Result<ExitCode> {
    let client = client()?;
    let request = client.post(format!("{}/v1/jobs/{job}/retry", url.trim_end_matches('/')));
    let running = accepted(request, key, url).await?;
    println!("{running}");
    if follow_it {
        return follow_on(&client, url, &running).await;
    }
    Ok(ExitCode::SUCCESS)
}

/// A parked job is `needs_attention` until the word has come to its token; only then there is something to follow.
async fn follow_on(client: &reqwest::Client, url: &str, job: &str) -> anyhow::Result<ExitCode> {
    let address = format!("{}/v1/jobs/{job}", url.trim_end_matches('/'));
    for _ in 0..ATTEMPTS_MAX {
        if get(client, &address, url).await?["status"] != "needs_attention" {
            break;
        }
        tokio::time::sleep(FOLLOW_INTERVAL).await;
    }
    follow(client, url, job).await
}

/// Sends what a 202 is expected for; the job that it names.
async fn accepted(mut request: reqwest::RequestBuilder, key: Option<&str>, url: &str) -> anyhow::Result<String> {
    if let Some(key) = key {
        request = request.header("idempotency-key", format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\"")));
    }
    let response = request.send().await.with_context(|| unreachable_api(url))?;
    let status = response.status();
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let answer: Value = response.json().await.context("the answer is not JSON")?;
    let (StatusCode::ACCEPTED, Some(location)) = (status, location) else {
        bail!("{}", problem(status, &answer));
    };
    Ok(location.rsplit('/').next().unwrap_or_default().to_owned())
}

/// `meanwhile jobs show`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn show(url: &str, job: &str, follow_it: bool, json: bool) -> anyhow::Result<ExitCode> {
    let client = client()?;
    if json {
        let status = get(&client, &format!("{}/v1/jobs/{job}", url.trim_end_matches('/')), url).await?;
        println!("{status:#}");
        return Ok(ExitCode::SUCCESS);
    }
    if follow_it {
        return follow(&client, url, job).await;
    }
    let (status, events) = look(&client, url, job, "").await?;
    let mut timeline = Timeline::new(&status);
    timeline.print_new(&events);
    timeline.print_end(&status);
    Ok(ExitCode::SUCCESS)
}

/// Prints the timeline as it happens; success when the job succeeds.
async fn follow(client: &reqwest::Client, url: &str, job: &str) -> anyhow::Result<ExitCode> {
    let mut timeline: Option<Timeline> = None;
    let mut after = String::new();
    let mut failures = 0;
    loop {
        let (status, events) = match look(client, url, job, &after).await {
            Ok(seen) => seen,
            Err(error) if failures >= ATTEMPTS_MAX => return Err(error),
            Err(_) => {
                failures += 1;
                tokio::time::sleep(FOLLOW_INTERVAL).await;
                continue;
            }
        };
        failures = 0;
        let timeline = timeline.get_or_insert_with(|| Timeline::new(&status));
        timeline.print_new(&events);
        if let Some(next) = events["next"].as_str() {
            next.clone_into(&mut after);
        }
        let word = status["status"].as_str().unwrap_or_default();
        // The status is read before the events, so the events are at least as far.
        if matches!(word, "succeeded" | "failed" | "cancelled" | "needs_attention") {
            timeline.print_end(&status);
            return Ok(if word == "succeeded" { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        tokio::time::sleep(FOLLOW_INTERVAL).await;
    }
}

async fn look(client: &reqwest::Client, url: &str, job: &str, after: &str) -> anyhow::Result<(Value, Value)> {
    let address = format!("{}/v1/jobs/{job}", url.trim_end_matches('/'));
    let status = get(client, &address, url).await?;
    let events = get(client, &format!("{address}/events?after={after}"), url).await?;
    Ok((status, events))
}

async fn get(client: &reqwest::Client, address: &str, url: &str) -> anyhow::Result<Value> {
    let response = client.get(address).send().await.with_context(|| unreachable_api(url))?;
    let status = response.status();
    let answer: Value = response.json().await.context("the answer is not JSON")?;
    if !status.is_success() {
        bail!("{}", problem(status, &answer));
    }
    Ok(answer)
}

fn client() -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder().timeout(REQUEST_TIMEOUT).build().context("making an HTTP client")
}

fn unreachable_api(url: &str) -> String {
    format!("the API at {url} does not answer; start it with `meanwhile dev`, or name another with --url")
}

/// A problem document as a person reads it.
fn problem(status: StatusCode, answer: &Value) -> String {
    let text = |name: &str| answer[name].as_str().unwrap_or_default();
    let mut lines = vec![format!("{status}: {}", text("title")), text("detail").to_owned()];
    for error in answer["errors"].as_array().into_iter().flatten() {
        lines.push(format!(
            "  {}: {}",
            error["pointer"].as_str().unwrap_or("#"),
            error["detail"].as_str().unwrap_or("")
        ));
    }
    if !text("remediation").is_empty() {
        lines.push(format!("help: {}", text("remediation")));
    }
    lines.join("\n")
}

fn input(given: &str) -> anyhow::Result<String> {
    if given == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("reading standard input")?;
        return Ok(text);
    }
    match given.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("reading {file}")),
        None => Ok(given.to_owned()),
    }
}
