//! Workers with a native step, as a team would build them: it reserves stock at the shop, tells of its progress, and
//! sometimes hangs.

use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use workers::{NativeCall, NativeError, Workers};

/// Longer than any pause between two signs of a call that works.
const SILENCE_MAX: Duration = Duration::from_secs(3);
const SIGN_EVERY: Duration = Duration::from_millis(500);

#[expect(clippy::disallowed_methods, reason = "it calls this machine only")]
static CLIENT: LazyLock<Client> = LazyLock::new(|| Client::builder().no_proxy().build().unwrap_or_default());

#[tokio::main]
#[expect(clippy::print_stderr, reason = "the last words of a process: tests look for them")]
async fn main() -> ExitCode {
    let workers = Workers::builder().native("reserve", reserve).heartbeat("reserve", SILENCE_MAX).build();
    match workers.serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `with`: the `url` of the shop's inventory, the `body` of the reservation, and whether the first attempt `hangs`.
async fn reserve(call: NativeCall) -> Result<Value, NativeError> {
    if call.input["hangs"] == json!(true) && call.attempt == 1 && !call.undo {
        std::future::pending::<()>().await;
    }
    let asking = ask(&call);
    tokio::pin!(asking);
    for percent in 1.. {
        tokio::select! {
            done = &mut asking => return done,
            () = call.cancel.made() => return Err(NativeError::uncertain("the job is cancelled")),
            () = tokio::time::sleep(SIGN_EVERY) => call.progress.report(percent, "the shelf is searched"),
        }
    }
    Err(NativeError::uncertain("it takes too long"))
}

async fn ask(call: &NativeCall) -> Result<Value, NativeError> {
    let url = format!("{}/reservations", call.input["url"].as_str().unwrap_or_default());
    let request = match call.undo {
        true => CLIENT.request(Method::DELETE, format!("{url}/{}", call.undo_of())),
        false => CLIENT.request(Method::POST, url).json(&call.input["body"]),
    };
    let request = request.header("idempotency-key", format!("\"{}\"", call.idempotency_key));
    let answer = request.header("traceparent", &call.traceparent).send().await.map_err(uncertain)?;
    match answer.status() {
        StatusCode::NOT_FOUND | StatusCode::GONE if call.undo => Err(NativeError::nothing_to_undo("nothing is there")),
        status if status.is_success() => body(answer).await,
        status if status.is_server_error() => Err(NativeError::uncertain(format!("it answers {status}"))),
        status => Err(NativeError::permanent(format!("it answers {status}"))),
    }
}

async fn body(answer: Response) -> Result<Value, NativeError> {
    let bytes = answer.bytes().await.map_err(uncertain)?;
    Ok(serde_json::from_slice(&bytes).unwrap_or_default())
}

#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn uncertain(error: reqwest::Error) -> NativeError {
    NativeError::uncertain(error.to_string())
}
