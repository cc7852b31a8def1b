//! Answers that wait: woken by the events, never by a look at the database.

use axum::http::Method;
use flow::decide::code;
use flow::event::{EventKind, JobEvent, JobStatus};
use serde_json::{Value, json};
use test_kit::{Ground, eventually, measure, metric};
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;

use crate::stage::{Answer, Api, INPUT, PATIENCE, PREFIX, Stage, accepted_event};

/// The gauge of waiters is this process's: tests that look at it take turns.
static TURN: Mutex<()> = Mutex::const_new(());

async fn turn() -> MutexGuard<'static, ()> {
    measure();
    TURN.lock().await
}

async fn until_waiting(count: usize) {
    let waiting = || metric("meanwhile_waiters").unwrap_or(0.0);
    eventually(PATIENCE, "so many wait", async || (waiting() as usize == count).then_some(())).await;
}

/// A request that runs beside the test.
fn asking(api: &Api, method: Method, path: &str, headers: &[(&'static str, &str)]) -> JoinHandle<Option<Answer>> {
    let (api, path, body) = (api.clone(), path.to_owned(), if method == Method::POST { INPUT } else { "" });
    let mut headers: Vec<(&'static str, String)> =
        headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    if method == Method::POST {
        headers.push(("content-type", "application/json".to_owned()));
    }
    tokio::spawn(async move {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        api.ask(method, &path, &headers, body).await
    })
}

fn ordering(api: &Api, headers: &[(&'static str, &str)]) -> JoinHandle<Option<Answer>> {
    asking(api, Method::POST, "/v1/flows/order/jobs", headers)
}

async fn answered(asking: JoinHandle<Option<Answer>>) -> Answer {
    tokio::time::timeout(PATIENCE, asking).await.expect("an answer").unwrap().unwrap()
}

/// The id of the only job that is stored.
async fn stored_job(ground: &Ground) -> String {
    let sql = "select job from ingest.acceptances";
    eventually(PATIENCE, "a stored job", async || Some(ground.sql(sql)).filter(|job| !job.is_empty())).await
}

fn after(accepted: &JobEvent, kind: EventKind, status: JobStatus, data: Option<Value>) -> JobEvent {
    JobEvent { kind, status, hop: 1, data, ..accepted.clone() }
}

fn succeeded(accepted: &JobEvent) -> JobEvent {
    after(accepted, EventKind::JobSucceeded, JobStatus::Succeeded, Some(json!({ "tracking": "T1" })))
}

/// Tells how a job began and ended.
async fn end(ground: &Ground, job: &str, end: impl Fn(&JobEvent) -> JobEvent) {
    let accepted = accepted_event(ground, job).await;
    ground.tell(&accepted).await;
    ground.tell(&end(&accepted)).await;
}

fn applied(answer: &Answer) -> (u16, &str, &str) {
    (answer.status, answer.header("preference-applied"), answer.header("vary"))
}

/// Locks every table that tells of jobs, for as long as this runs.
pub(crate) async fn while_the_database_is_locked<T>(ground: &Ground, work: impl Future<Output = T>) -> T {
    while_locked(ground, "orchestrator.jobs, orchestrator.offsets, ingest.acceptances", work).await
}

/// Locks these tables for as long as this runs.
pub(crate) async fn while_locked<T>(ground: &Ground, tables: &str, work: impl Future<Output = T>) -> T {
    let lock = format!("begin; lock table {tables} in access exclusive mode; select pg_sleep(120)");
    let url = ground.database_url.clone();
    let holding = tokio::task::spawn_blocking(move || test_kit::psql(&url, &lock));
    let of_lock = "from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'";
    let holds = || ground.sql(&format!("select count(*) {of_lock}")) == "1";
    eventually(PATIENCE, "the lock", async || holds().then_some(())).await;
    let done = work.await;
    assert!(holds(), "the lock was held all the time");
    ground.sql(&format!("select pg_terminate_backend(pid) {of_lock}"));
    assert!(holding.await.unwrap().is_err());
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submit_that_waits_is_answered_with_the_result_while_the_database_is_locked() {
    let _turn = turn().await;
    let Stage { ground, ingest } = Stage::new().await;
    let waiting = ordering(&ingest.api, &[("prefer", "respond-async;x=1"), ("prefer", "Wait = \"600\"")]);
    let job = stored_job(&ground).await;
    let accepted = accepted_event(&ground, &job).await;
    ground.tell(&accepted).await;
    let end = succeeded(&accepted);
    let answer = while_the_database_is_locked(&ground, async {
        ground.tell(&end).await;
        answered(waiting).await
    })
    .await;
    assert_eq!(applied(&answer), (200, "wait=60", "Prefer"), "the cap is told: {}", answer.text);
    assert_eq!(answer.json, json!({ "tracking": "T1" }));
    assert_eq!(answer.header("content-location"), format!("{PREFIX}/v1/jobs/{job}/result"));
    assert_eq!((answer.header("location"), answer.header("idempotent-replayed")), ("", ""));
    ingest.stop().await;
    until_waiting(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submit_names_the_preferences_that_it_honours_and_no_others() {
    let _turn = turn().await;
    let stage = Stage::new().await;
    let cases: [(&[&str], &str); 9] = [
        (&[], ""),
        (&["wait=0"], "wait=0"),
        (&["respond-async"], "respond-async"),
        (&["respond-async, wait=0"], "wait=0, respond-async"),
        (&["wait=0", "wait=60"], "wait=0"),
        (&["wait 60, wait=\"60"], ""),
        (&["wait=soon, wait=60"], ""),
        (&["return=minimal, handling=strict"], ""),
        (&["unknown; wait=60, wait=-1"], ""),
    ];
    for (lines, expected) in cases {
        let headers: Vec<(&str, &str)> = lines.iter().map(|line| ("prefer", *line)).collect();
        for path in ["/v1/flows/order/jobs", "/orders"] {
            let answer = stage.ingest.api.post(path, &headers, INPUT).await;
            assert_eq!(applied(&answer), (202, expected, "Prefer"), "{path} {lines:?}");
            assert_eq!(answer.header("retry-after"), "1");
        }
    }
    let refused = stage.ingest.api.order(&[("prefer", "wait=60")], "{}").await;
    assert_eq!(applied(&refused), (422, "", "Prefer"), "{}", refused.text);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_key_waits_for_the_same_job_and_a_failed_one_answers_with_its_problem() {
    let _turn = turn().await;
    let Stage { ground, ingest } = Stage::new().await;
    let headers = [("prefer", "wait=60"), ("idempotency-key", "\"k\"")];
    let first = ordering(&ingest.api, &headers);
    let job = stored_job(&ground).await;
    let second = ordering(&ingest.api, &headers);
    until_waiting(2).await;
    let failure =
        json!({ "step": "reserve", "code": code::STEP_FAILED, "message": "no luck", "status": 409, "attempts": 3 });
    end(&ground, &job, |accepted| after(accepted, EventKind::JobFailed, JobStatus::Failed, Some(failure.clone())))
        .await;
    let third = ordering(&ingest.api, &headers);
    for (asked, replayed) in [(first, ""), (second, "true"), (third, "true")] {
        let answer = answered(asked).await;
        assert_eq!(applied(&answer), (409, "wait=60", "Prefer"), "{}", answer.text);
        assert_eq!((answer.problem(), &answer.json["job"]), ("step-failed", &json!(job)));
        assert_eq!(answer.header("idempotent-replayed"), replayed);
        assert_eq!(answer.header("content-location"), format!("{PREFIX}/v1/jobs/{job}/result"));
    }
    let plain = ingest.api.order(&headers[1..], INPUT).await;
    assert_eq!(
        (plain.job(), plain.header("idempotent-replayed")),
        (job, "true"),
        "who does not wait gets the same 202"
    );
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_waits_for_a_change_and_a_result_for_the_end() {
    let _turn = turn().await;
    let Stage { ground, ingest } = Stage::with(|config| config.wait_max_s = 1_000).await;
    let job = ingest.api.order(&[], INPUT).await.job();
    let (status, result) = (format!("/v1/jobs/{job}"), format!("/v1/jobs/{job}/result"));
    let accepted = accepted_event(&ground, &job).await;
    let at_first = format!("\"{}\"", ground.tell(&accepted).await.1);
    let tagged = [("if-none-match", at_first.as_str())];
    let seen = async || ingest.api.get_with(&status, &tagged).await.status == 304;
    eventually(PATIENCE, "the first event", async || seen().await.then_some(())).await;

    // A wait of no time: all is as it was.
    for (path, headers, expected) in [
        (&format!("{status}?wait=0"), &tagged[..], (304, "", "Prefer")),
        (&format!("{status}?wait=0"), &[("prefer", "wait=60")], (200, "", "Prefer")),
        (&status, &[("prefer", "wait=0, return=minimal")], (200, "wait=0", "Prefer")),
        (&format!("{result}?wait="), &[("prefer", "wait=0")], (400, "", "")),
        (&result, &[], (404, "", "Prefer")),
        (&format!("{status}?wait=soon"), &[], (400, "", "")),
        (&format!("{result}?wait=-1"), &[], (400, "", "")),
        (&format!("{}?wait=60", status.replace('0', "1")), &[("prefer", "wait=1")], (404, "", "Prefer")),
    ] {
        let answer = ingest.api.get_with(path, headers).await;
        assert_eq!(applied(&answer), expected, "{path} {headers:?}: {}", answer.text);
    }

    let wait = ("prefer", "wait=9999");
    let statuses = [
        asking(&ingest.api, Method::GET, &status, &[wait]),
        asking(&ingest.api, Method::GET, &format!("{status}?wait=1000"), &tagged),
        asking(&ingest.api, Method::GET, &status, &[wait, ("if-none-match", "*")]),
    ];
    let ends = asking(&ingest.api, Method::GET, &result, &[wait]);
    until_waiting(4).await;
    let step = JobEvent {
        step: Some("reserve".to_owned()),
        ..after(&accepted, EventKind::StepSucceeded, JobStatus::Running, None)
    };
    let told = while_the_database_is_locked(&ground, async {
        let told = ground.tell(&step).await.1;
        for (waiting, expected) in statuses.into_iter().zip([(200, "wait=1000"), (200, ""), (304, "wait=1000")]) {
            let answer = answered(waiting).await;
            assert_eq!(applied(&answer), (expected.0, expected.1, "Prefer"), "{}", answer.text);
            assert_eq!(answer.header("etag"), format!("\"{told}\""));
        }
        told
    })
    .await;
    // As against a state that is no more, the answer is there at once.
    assert_eq!(ingest.api.get_with(&status, &[tagged[0], wait]).await.header("etag"), format!("\"{told}\""));

    let cancelled = asking(&ingest.api, Method::GET, &status, &[wait]);
    until_waiting(2).await;
    ingest.api.ask(Method::DELETE, &status, &[], "").await.unwrap();
    assert_eq!(answered(cancelled).await.header("etag"), format!("\"{told}-cancel\""), "a cancel is a change, too");

    ground.tell(&JobEvent { hop: 2, ..succeeded(&accepted) }).await;
    let answer = answered(ends).await;
    assert_eq!((applied(&answer), &answer.json), ((200, "wait=1000", "Prefer"), &json!({ "tracking": "T1" })));
    // It has ended: nothing is waited for.
    let over = ingest.api.get_with(&status, &[wait, ("if-none-match", "*")]).await;
    assert_eq!(applied(&over), (304, "wait=1000", "Prefer"));
    let over = ingest.api.get_with(&status, &[("prefer", "return=minimal, wait=9999")]).await;
    assert_eq!(applied(&over), (303, "wait=1000, return=minimal", "Prefer"));
    assert_eq!(over.header("location"), format!("{PREFIX}{result}"));
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_leaves_gives_its_place_back_and_without_a_place_there_is_no_wait() {
    let _turn = turn().await;
    let Stage { ground, ingest } = Stage::with(|config| config.waiters_max = 1).await;
    let refused = || metric("meanwhile_waits_refused_total").unwrap_or(0.0);
    let (before, wait) = (refused(), [("prefer", "wait=60")]);
    let waiting = ordering(&ingest.api, &wait);
    let job = stored_job(&ground).await;
    let answer = ingest.api.order(&wait, INPUT).await;
    assert_eq!(applied(&answer), (202, "", "Prefer"), "as if it had not asked for a wait");
    let answer = ingest.api.get_with(&format!("/v1/jobs/{job}"), &wait).await;
    assert_eq!(applied(&answer), (200, "", "Prefer"));
    assert_eq!(refused() - before, 2.0);
    waiting.abort();
    until_waiting(0).await;
    let waiting = asking(&ingest.api, Method::GET, &format!("/v1/jobs/{job}"), &wait);
    until_waiting(1).await;
    end(&ground, &job, succeeded).await;
    assert_eq!(applied(&answered(waiting).await), (200, "wait=60", "Prefer"));
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_shutdown_each_waiter_gets_the_answer_that_it_would_have_got_at_the_end_of_its_wait() {
    let _turn = turn().await;
    let Stage { ground, ingest } = Stage::new().await;
    let wait = [("prefer", "wait=60")];
    let submitted = ordering(&ingest.api, &wait);
    let job = stored_job(&ground).await;
    let status = asking(&ingest.api, Method::GET, &format!("/v1/jobs/{job}"), &wait);
    let result = asking(&ingest.api, Method::GET, &format!("/v1/jobs/{job}/result"), &wait);
    until_waiting(3).await;
    ingest.stop().await;
    for (asked, expected) in [(submitted, 202), (status, 200), (result, 404)] {
        let answer = answered(asked).await;
        assert_eq!(applied(&answer), (expected, "wait=60", "Prefer"), "{}", answer.text);
        assert_eq!(answer.header("retry-after"), "1");
    }
    until_waiting(0).await;
}
