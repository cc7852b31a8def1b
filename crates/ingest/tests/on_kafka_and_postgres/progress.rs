//! Reports of steps under way: who may send them, and what a status shows of them.

use axum::http::Method;
use events::progress::{PERCENT, Progress, STARTED};
use events::progress_record;
use flow::callback::{Permit, Purpose};
use flow::event::{EventKind, JobEvent, JobStatus};
use flow::id::JobId;
use flow::slip::Phase;
use serde_json::json;
use test_kit::eventually;

use crate::stage::{Answer, INPUT, Ingest, PATIENCE, PUBLIC_URL, Stage, accepted_event, callback_secrets, trace_of};

/// The end of a permit that nobody lives to see.
const NEVER_MS: i64 = 32_503_680_000_000;

struct Reporting {
    stage: Stage,
    accepted: JobEvent,
    permit: Permit,
}

async fn reporting() -> Reporting {
    // A wait that nothing ends is longer than any test.
    let stage = Stage::with(|config| config.wait_max_s = 1_000).await;
    let job = stage.ingest.api.order(&[], INPUT).await.job();
    let accepted = accepted_event(&stage.ground, &job).await;
    stage.ground.tell(&accepted).await;
    let (tenant, step) = ("default".to_owned(), "reserve".to_owned());
    let permit = Permit { job: job.parse().unwrap(), tenant, step, visit: 1, round: 0, end_ms: NEVER_MS };
    Reporting { stage, accepted, permit }
}

fn path(permit: &Permit) -> String {
    format!("/v1/progress/{}", callback_secrets().sign(Purpose::Progress, permit).unwrap())
}

/// What a worker tells of the first attempt of `order`'s first step.
pub(crate) fn sample_progress(job: JobId, kind: &str) -> Progress {
    Progress {
        job,
        tenant: "default".to_owned(),
        flow: "order".to_owned(),
        kind: kind.to_owned(),
        step: Some("reserve".to_owned()),
        phase: Phase::Forward,
        branch: String::new(),
        hop: 1,
        visit: 1,
        attempt: 1,
        percent: None,
        message: None,
        data: None,
        at_ms: 1_753_000_000_123,
    }
}

impl Reporting {
    fn status_path(&self) -> String {
        format!("/v1/jobs/{}", self.permit.job)
    }

    async fn put(&self, path: &str, body: &str) -> Answer {
        let headers = [("content-type", "application/json")];
        self.stage.ingest.api.ask(Method::PUT, path, &headers, body).await.unwrap()
    }

    fn progress(&self, kind: &str, percent: Option<u8>) -> Progress {
        Progress { percent, ..sample_progress(self.permit.job, kind) }
    }

    /// What a worker does.
    async fn tell(&self, progress: &Progress) -> i64 {
        let ground = &self.stage.ground;
        let trace = trace_of(&ground.outbox(&ground.topics.events())[0]);
        ground.send(&progress_record(&ground.topics, &ground.writers, progress, &trace).unwrap()).await.1
    }

    async fn until_percent(&self, percent: u64) -> Answer {
        eventually(PATIENCE, "the percent", async || {
            let answer = self.stage.ingest.api.get(&self.status_path()).await;
            (answer.json["progress"]["percent"] == percent).then_some(answer)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_and_its_tag_change_with_a_report_and_no_caller_is_given_an_older_one() {
    let reporting = reporting().await;
    reporting.tell(&Progress { kind: "of-a-later-version".to_owned(), ..reporting.progress(PERCENT, Some(99)) }).await;
    reporting.tell(&reporting.progress(STARTED, None)).await;
    let offset = reporting.tell(&reporting.progress(PERCENT, Some(30))).await;
    let answer = reporting.until_percent(15).await;
    let step = &answer.json["steps"][0];
    assert_eq!((&step["status"], &step["attempts"]), (&json!("running"), &json!(1)), "{}", answer.text);
    assert_eq!((&step["started_at"], &step["progress"]), (&json!("2025-07-20T08:26:40.123Z"), &json!({"percent": 30})));
    let (api, status) = (&reporting.stage.ingest.api, reporting.status_path());
    let tag = answer.header("etag").to_owned();
    assert!(tag.ends_with(&format!("-p{offset}\"")), "{tag}");
    assert_eq!(api.get_with(&status, &[("if-none-match", &tag)]).await.status, 304);
    // A report wakes whoever waits for a change, or the answer has it already.
    let (mut tag, mut offset) = (tag, offset);
    for percent in [40, 50, 60] {
        let (api, path, known) = (api.clone(), format!("{status}?wait=900"), tag.clone());
        let waiting = tokio::spawn(async move { api.get_with(&path, &[("if-none-match", &known)]).await });
        tokio::task::yield_now().await;
        offset = reporting.tell(&reporting.progress(PERCENT, Some(percent))).await;
        let woken = waiting.await.unwrap();
        assert_eq!((woken.status, &woken.json["progress"]["percent"]), (200, &json!(percent / 2)), "{}", woken.text);
        woken.header("etag").clone_into(&mut tag);
    }
    // Another process has shown a later report: the caller keeps that.
    let later = tag.replace(&format!("-p{offset}"), &format!("-p{}", offset + 5));
    let kept = api.get_with(&status, &[("if-none-match", &later)]).await;
    assert_eq!((kept.status, kept.header("etag")), (304, later.as_str()));
    // Without the report, or of another cursor, it is another status.
    let plain = tag.replace(&format!("-p{offset}"), "");
    assert_eq!(api.get_with(&status, &[("if-none-match", &plain)]).await.status, 200);
    let ahead = api.get_with(&status, &[("if-none-match", "\"999999-p1\"")]).await;
    assert_eq!((ahead.status, ahead.problem()), (503, "not-ready"));

    // The step ends: what it told is over, and the tag is the cursor alone.
    let Reporting { stage, accepted, .. } = &reporting;
    let (step, status) = (Some("reserve".to_owned()), JobStatus::Running);
    let done = JobEvent { kind: EventKind::StepSucceeded, status, step, hop: 1, visit: 1, ..accepted.clone() };
    let (_, cursor) = stage.ground.tell(&done).await;
    reporting.tell(&reporting.progress(PERCENT, Some(80))).await;
    let answer = reporting.until_percent(50).await;
    assert_eq!(answer.header("etag"), format!("\"{cursor}\""));
    assert_eq!(answer.json["steps"][0].get("progress"), None, "{}", answer.text);
    reporting.stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_tells_by_the_address_that_its_step_was_given_and_a_restart_forgets_nothing() {
    let reporting = reporting().await;
    let path = path(&reporting.permit);
    for percent in 0..=60 {
        let answer = reporting.put(&path, &format!(r#"{{"percent":{percent},"message":"{percent} done"}}"#)).await;
        assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    }
    let answer = reporting.until_percent(30).await;
    assert_eq!(answer.json["progress"]["message"], "60 done", "the last of many counts");
    let tag = answer.header("etag").to_owned();
    let Reporting { stage: Stage { ground, ingest }, permit, .. } = reporting;
    ingest.stop().await;
    let ingest = Ingest::start(&ground, |_| {}).await;
    ingest.ready().await;
    eventually(PATIENCE, "the report of before", async || {
        let answer = ingest.api.get(&format!("/v1/jobs/{}", permit.job)).await;
        (answer.json["progress"]["message"] == "60 done" && answer.header("etag") == tag).then_some(())
    })
    .await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guessed_changed_or_old_address_is_none_and_what_cannot_be_read_is_refused() {
    let reporting = reporting().await;
    let permit = &reporting.permit;
    let good = path(permit);
    let callback = format!("/v1/progress/{}", callback_secrets().sign(Purpose::Callback, permit).unwrap());
    let old = path(&Permit { end_ms: 1, ..permit.clone() });
    let nobodys = path(&Permit { job: "0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d".parse().unwrap(), ..permit.clone() });
    let others = path(&Permit { tenant: "other".to_owned(), ..permit.clone() });
    for address in [callback, old, nobodys, others, "/v1/progress/x".to_owned()] {
        let answer = reporting.put(&address, r#"{"percent":1}"#).await;
        assert_eq!((answer.status, answer.problem()), (404, "unknown-progress"), "{address}");
    }
    let progress_as_callback = good.replace("/progress/", "/callbacks/");
    let refused = reporting.put(&progress_as_callback, "{}").await;
    assert_eq!((refused.status, refused.problem()), (404, "unknown-callback"), "it ends no step");
    for (body, status, problem) in
        [("{", 400, "invalid-json"), (r#"{"percent":101}"#, 422, "schema-violation"), ("{}", 422, "schema-violation")]
    {
        let answer = reporting.put(&good, body).await;
        assert_eq!((answer.status, answer.problem()), (status, problem), "{}", answer.text);
    }
    let typed = reporting.stage.ingest.api.ask(Method::PUT, &good, &[("content-type", "text/plain")], "1").await;
    assert_eq!(typed.unwrap().problem(), "unsupported-media-type");
    let end =
        JobEvent { kind: EventKind::JobSucceeded, status: JobStatus::Succeeded, hop: 5, ..reporting.accepted.clone() };
    reporting.stage.ground.tell(&end).await;
    let late = eventually(PATIENCE, "the job has ended", async || {
        let answer = reporting.put(&good, r#"{"percent":1}"#).await;
        (answer.status != 204).then_some(answer)
    })
    .await;
    assert_eq!((late.status, late.problem()), (409, "already-finished"));
    assert!(late.json["type"].as_str().unwrap().starts_with(PUBLIC_URL));
    reporting.stage.ingest.stop().await;
}
