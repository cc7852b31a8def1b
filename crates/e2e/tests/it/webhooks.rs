//! Webhooks through the whole system: to the receivers that the guide shows, and through deaths.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use client::{Client, DeliveryChoice, NewWebhookEndpoint, WebhookEndpoint};
use flow::id::JobId;
use reqwest::RequestBuilder;
use serde_json::json;
use test_kit::{Answer, Launch, Port, Process, Receiver, Role};
use test_kit::{eventually, http_client, kcat, read_topic, repository, tool_path, topic_names};

use crate::client::{order, send};
use crate::command_line::meanwhile;
use crate::dev_mode::Dev;
use crate::stage::{PATIENCE, Stage};
use crate::turn::{beside_others, nearly_alone};

/// A secret as its owner writes it, and the bytes of its key.
const SECRET: &str = "whsec_VGhpcyBpcyBhIHNlY3JldCBvZiA0MCBieXRlcywgYXJlIHlvdSA/";
const KEY: &[u8] = b"This is a secret of 40 bytes, are you ?";

async fn register(client: &Client, url: &str, events: &[&str]) -> WebhookEndpoint {
    let events = Some(events.iter().map(|event| (*event).to_owned()).collect());
    let new = NewWebhookEndpoint { url: url.to_owned(), events, ..NewWebhookEndpoint::default() };
    client.create_webhook_endpoint(&new).await.unwrap()
}

/// The ids of what a receiver was sent, and how often.
fn taken(receiver: &Receiver) -> BTreeMap<String, usize> {
    receiver.requests().iter().fold(BTreeMap::new(), |mut taken, request| {
        *taken.entry(request.header("webhook-id").to_owned()).or_default() += 1;
        taken
    })
}

async fn until_delivered(client: &Client, endpoint: &WebhookEndpoint, count: usize) {
    let choice = DeliveryChoice {
        endpoint: Some(endpoint.id.clone()),
        status: Some("delivered".to_owned()),
        limit: Some(200),
        ..DeliveryChoice::default()
    };
    eventually(PATIENCE, &format!("{count} deliveries are made"), async || {
        let found = client.webhook_deliveries(&choice).await.ok()?;
        (found.len() >= count).then_some(())
    })
    .await;
}

/// The block of docs/webhooks.md in this language.
fn receiver(language: &str) -> String {
    let guide = std::fs::read_to_string(repository().join("docs/webhooks.md")).unwrap();
    let (_, rest) = guide.split_once(&format!("```{language} receiver\n")).expect("the guide has a receiver");
    rest.split_once("```").unwrap().0.to_owned()
}

/// Starts a receiver of the guide; it is up on return.
async fn started(launch: Launch, port: &Port, secret: &str) -> Process {
    let launch = launch.env("PORT", port.number().to_string()).env("WEBHOOK_SECRET", secret);
    let mut process = Process::start(launch).unwrap();
    let url = format!("http://127.0.0.1:{}/", port.number());
    let is_up = async || http_client().post(&url).body("{}").send().await.is_ok();
    process.wait_until(PATIENCE, "it answers", is_up).await.unwrap();
    process
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_receivers_of_the_guide_verify_what_they_get_by_the_official_libraries() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let client = stage.system.client();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "receiver.py", &receiver("python"));
    write(folder.path(), "receiver.js", &receiver("js"));
    write(folder.path(), "package.json", r#"{"type":"module"}"#);
    let packages = tool_path("callers").unwrap().join("node_modules");
    std::os::unix::fs::symlink(packages, folder.path().join("node_modules")).unwrap();
    let python = Launch::new("receiver-python", "python3").arg("receiver.py");
    let python = python.env("PYTHONPATH", tool_path("callers-python").unwrap()).env("PYTHONDONTWRITEBYTECODE", "1");
    let javascript = Launch::new("receiver-js", tool_path("node").unwrap()).arg("receiver.js");
    let mut processes = Vec::new();
    for launch in [python, javascript] {
        let port = Port::take().unwrap();
        let url = format!("http://127.0.0.1:{}/hook", port.number());
        let endpoint = register(&client, &url, &["job.succeeded"]).await;
        let secret = endpoint.secret.clone().unwrap();
        let process = started(launch.folder(folder.path()), &port, &secret).await;
        processes.push((endpoint, process, port));
    }
    let job = stage.submit("order", &order("hooks", json!({}))).await;
    for (endpoint, process, _) in &processes {
        until_delivered(&client, endpoint, 1).await;
        let choice = DeliveryChoice { endpoint: Some(endpoint.id.clone()), ..DeliveryChoice::default() };
        let deliveries = client.webhook_deliveries(&choice).await.unwrap();
        assert_eq!(deliveries[0].job.as_deref(), Some(job.to_string().as_str()));
        let said = std::fs::read_to_string(process.log()).unwrap();
        assert!(said.contains(&format!("{} job.succeeded", deliveries[0].id)), "{said}");
    }
    // With another secret nothing is verified, and the receiver says so.
    let (endpoint, ..) = &processes[0];
    client.rotate_webhook_secret(&endpoint.id, "0s").await.unwrap();
    let ping = client.ping_webhook_endpoint(&endpoint.id).await.unwrap();
    let refused = format!("{}/v1/webhooks/deliveries/{ping}", stage.system.api());
    eventually(PATIENCE, "the receiver refuses the signature", async || {
        let seen = send(http_client().get(&refused)).await;
        (seen.body["attempt_log"][0]["status"] == 401).then_some(())
    })
    .await;
    stage.end_of(job).await;
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_death_between_sending_and_recording_loses_a_webhook_or_gives_it_another_id() {
    const JOBS: usize = 20;
    let _turn = nearly_alone().await;
    let mut stage = Stage::start_with(|builder| {
        // The time after which a delivery is made again: this, and ten seconds.
        builder.variable("MEANWHILE__NOTIFIER__TIMEOUT_MS", "1000").lines()
    })
    .await;
    let (client, receiver) = (stage.system.client(), Receiver::start().await);
    let endpoint = register(&client, &receiver.url(), &["job.succeeded"]).await;
    let notifier = stage.system.role(Role::Notifier);
    notifier.process().set_env("MEANWHILE_STOP_AT", "notifier.before-record:1");
    notifier.restart().unwrap();
    let mut jobs = Vec::new();
    for number in 0..JOBS {
        jobs.push(stage.submit("order", &order(&format!("c-{number}"), json!({}))).await);
    }
    let notifier = stage.system.role(Role::Notifier);
    let status = notifier.process().wait_for_exit(PATIENCE).await.unwrap();
    assert!(!status.success(), "it left with {status}");
    let before = taken(&receiver);
    assert!(!before.is_empty(), "it has sent something that it has not recorded");
    notifier.process().set_env("MEANWHILE_STOP_AT", "");
    notifier.restart().unwrap();
    notifier.wait_until_ready().await.unwrap();
    stage.system.postgres().kill9();
    stage.system.postgres().restart().await.unwrap();
    stage.ends_of(jobs).await;
    until_delivered(&client, &endpoint, JOBS).await;
    let after = taken(&receiver);
    assert_eq!(after.len(), JOBS, "one id for each job, however often it was sent");
    assert!(before.keys().any(|id| after[id] > 1), "what was not recorded was sent again: {after:?}");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_mode_delivers_webhooks_on_the_same_machine() {
    let _turn = beside_others().await;
    let dev = Dev::start_with(&repository().join("flows"), &[]).await;
    let (client, receiver) = (Client::new(&dev.api).unwrap(), Receiver::start().await);
    receiver.answer_with(|_| Answer::status(204));
    let endpoint = register(&client, &receiver.url(), &["job.*"]).await;
    let key = uuid::Uuid::now_v7().to_string();
    test_kit::submit(&client, "order", &key, &order("dev", json!({}))).await.unwrap();
    until_delivered(&client, &endpoint, 2).await;
    let kinds: Vec<_> = receiver.requests().iter().map(|request| request.json()["type"].clone()).collect();
    assert_eq!(kinds, ["job.accepted", "job.succeeded"]);
    // A job's own, as the command line asks for them, too.
    let (own, input) = (Receiver::start().await, order("own", json!({})).to_string());
    let args = ["submit", "order", "--input", &input, "--callback-url", &own.url(), "--callback-secret", SECRET];
    let args = [&args[..], &["--callback-event", "job.accepted"]].concat();
    let (code, job, error) = meanwhile(&args, &[("MEANWHILE_URL", &dev.api)], "").await;
    assert_eq!(code, Some(0), "{error}");
    eventually(PATIENCE, "the job is told of", async || (!own.requests().is_empty()).then_some(())).await;
    let told = &own.requests()[0];
    assert_eq!(
        (told.json()["type"].as_str(), told.json()["data"]["job"].as_str()),
        (Some("job.accepted"), Some(job.trim()))
    );
    assert!(told.header("webhook-signature").starts_with("v1,"));
}

/// The headers of a request that asks for a webhook of its own job.
fn asked(request: RequestBuilder, key: &str, url: &str, secret: &str) -> RequestBuilder {
    request
        .header("idempotency-key", format!("\"{key}\""))
        .header("meanwhile-callback-url", url)
        .header("meanwhile-callback-secret", secret)
        .json(&order(key, json!({})))
}

/// Whatever the topics hold, but for the commands, which their senders write.
async fn records(stage: &Stage) -> Vec<u8> {
    let (brokers, commands) = (stage.system.brokers().to_owned(), stage.system.topics().commands());
    let prefix = stage.system.topics().prefix().to_owned();
    let mut all = Vec::new();
    for topic in topic_names(&brokers).unwrap() {
        if topic.starts_with(&prefix) && topic != commands {
            for record in read_topic(&brokers, &topic).await.unwrap() {
                let headers = record.headers.iter().filter_map(|(_, value)| value).flatten().copied();
                all.extend(record.value.iter().flatten().copied().chain(headers));
            }
        }
    }
    all
}

/// Looks at all that the system has told of these jobs, to whomever.
async fn no_secret_is_shown(stage: &mut Stage, jobs: &[JobId]) {
    let mut shown = records(stage).await;
    for role in stage.system.roles() {
        shown.extend(std::fs::read(role.process().log()).unwrap());
    }
    for path in ["/v1/jobs", "/v1/webhooks/deliveries", "/v1/dead-letters", "/v1/events", "/metrics"] {
        let answer = http_client().get(format!("{}{path}", stage.system.api())).send().await.unwrap();
        shown.extend(answer.bytes().await.unwrap());
    }
    for job in jobs {
        for rest in ["", "/events", "/result"] {
            let url = format!("{}/v1/jobs/{job}{rest}", stage.system.api());
            shown.extend(http_client().get(url).send().await.unwrap().bytes().await.unwrap());
        }
    }
    for needle in [&SECRET.as_bytes()["whsec_".len()..], KEY] {
        assert!(!shown.windows(needle.len()).any(|bytes| bytes == needle), "something shows it");
    }
    assert!(shown.windows(4).any(|bytes| bytes == b"kcat"), "there is something to look at");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_is_told_through_the_death_of_ingest_verified_by_the_official_library_and_its_secret_shown_nowhere()
{
    let _turn = nearly_alone().await;
    let mut stage = Stage::start().await;
    let api = format!("{}/v1/flows/order/jobs", stage.system.api());
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "receiver.py", &receiver("python"));
    let python = Launch::new("callbacks-python", "python3").arg("receiver.py").folder(folder.path());
    let python = python.env("PYTHONPATH", tool_path("callers-python").unwrap()).env("PYTHONDONTWRITEBYTECODE", "1");
    let (port, secret) = (Port::take().unwrap(), SECRET);
    let process = started(python, &port, secret).await;
    let url = format!("http://127.0.0.1:{}/hook", port.number());
    let mut jobs = Vec::new();
    for seam in ["ingest.before-commit", "ingest.after-commit"] {
        let ingest = stage.system.role(Role::Ingest);
        ingest.process().set_env("MEANWHILE_STOP_AT", format!("{seam}:1"));
        ingest.restart().unwrap();
        ingest.wait_until_ready().await.unwrap();
        assert!(asked(http_client().post(&api), seam, &url, secret).send().await.is_err(), "it dies meanwhile");
        let ingest = stage.system.role(Role::Ingest);
        ingest.process().wait_for_exit(PATIENCE).await.unwrap();
        ingest.process().set_env("MEANWHILE_STOP_AT", "");
        ingest.restart().unwrap();
        ingest.wait_until_ready().await.unwrap();
        let again = send(asked(http_client().post(&api), seam, &url, secret)).await;
        assert_eq!(again.status, 202, "{again:?}");
        jobs.push(again.job());
    }
    let refused = send(asked(http_client().post(&api), "refused", "http://169.254.169.254/", secret)).await;
    assert_eq!((refused.status, refused.body.to_string().contains(&secret[6..])), (422, false), "{refused:?}");
    let callback = json!({ "url": url, "secret": secret, "events": ["job.*"] });
    let line = json!({ "flow": "order", "input": order("kcat", json!({})), "id": "by-kcat", "callback": callback });
    let (brokers, commands) = (stage.system.brokers().to_owned(), stage.system.topics().commands());
    kcat(&["-P", "-b", &brokers, "-t", &commands], format!("{line}\n").as_bytes()).unwrap();
    let of_command = eventually(PATIENCE, "the command is a job", async || {
        let listed = send(http_client().get(format!("{}/v1/jobs?key=kcat", stage.system.api()))).await;
        listed.body["jobs"][0]["id"].as_str()?.parse().ok()
    })
    .await;
    jobs.push(of_command);
    stage.system.note_accepted(jobs.iter().copied());
    stage.ends_of(jobs.clone()).await;

    let client = stage.system.client();
    for (job, kinds) in
        jobs.iter().zip([&["job.succeeded"][..], &["job.succeeded"], &["job.accepted", "job.succeeded"]])
    {
        let choice = DeliveryChoice { job: Some(job.to_string()), ..DeliveryChoice::default() };
        let made = eventually(PATIENCE, "the job is told of", async || {
            let found = client.webhook_deliveries(&choice).await.ok()?;
            let is_made = found.len() == kinds.len() && found.iter().all(|one| one.status == "delivered");
            is_made.then_some(found)
        })
        .await;
        assert!(made.iter().all(|one| one.callback));
        // Both may be made in one transaction: the list has the latest first, and these are of one time.
        let told: BTreeSet<&str> = made.iter().map(|one| one.kind.as_str()).collect();
        assert_eq!(told, kinds.iter().copied().collect());
        let said = std::fs::read_to_string(process.log()).unwrap();
        assert!(made.iter().all(|one| said.contains(&format!("{} {}", one.id, one.kind))), "{said}");
    }
    no_secret_is_shown(&mut stage, &jobs).await;
    stage.finish().await;
}
