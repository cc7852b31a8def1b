//! An operator's word: the parked token that it names goes on, once, with the event that says so.

use events::wait::{Resume, Signal, Wait};
use events::{Inbound, decode_event, decode_slip, slip_record, wait_record};
use flow::decide::{Said, UNDONE_BY_HAND, VERDICTS, Verdict};
use flow::event::{EventKind, JobStatus};
use flow::id::{JobId, TokenId};
use flow::slip::{Hold, HoldReason, Phase, ReleasedBy, Slip};
use serde_json::json;
use test_kit::{Ground, TEST_TRACE, sample_event, sample_job, sample_slip};

use crate::stage::{refused, start, start_zombie, stored, until, until_taken_in};

async fn send(ground: &Ground, wait: Wait) {
    let record = wait_record(&ground.topics, &ground.writers, &wait, &TEST_TRACE).unwrap();
    ground.send(&record).await;
}

async fn park(ground: &Ground, job: JobId, hop: u32) {
    rest(ground, job, hop, HoldReason::Attention, None).await;
}

async fn rest(ground: &Ground, job: JobId, hop: u32, reason: HoldReason, release_after_ms: Option<u64>) {
    let (slip, queue) = (sample_slip(job, hop), "default".to_owned());
    send(ground, Wait::Hold(Hold { slip, queue, reason, release_after_ms, signal: None, limit: None })).await;
}

async fn say(ground: &Ground, job: JobId, hop: u32) {
    rule(ground, job, hop, None).await;
}

async fn rule(ground: &Ground, job: JobId, hop: u32, verdict: Option<Verdict>) {
    let token = TokenId { job, branch: String::new(), hop };
    let resume = Resume { token, tenant: "default".to_owned(), verdict, at_ms: 1 };
    send(ground, Wait::Signal(resume.into())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_sends_the_token_that_it_names_on_once_with_its_event_first() {
    let ground = Ground::new().await;
    let (parked, other) = (sample_job(), sample_job());
    // Before anybody reads: the hold and all words may come in one batch.
    park(&ground, parked, 4).await;
    park(&ground, other, 4).await;
    for hop in [4, 3, 4, 5] {
        say(&ground, parked, hop).await;
    }
    let running = start(&ground);
    until_taken_in(&ground, &ground.topics.waits(), 6).await;
    let sent = ground.outbox(&ground.topics.steps("default"));
    let wanted = slip_record(&ground.topics, &ground.writers, "default", &sample_slip(parked, 4), &TEST_TRACE);
    assert_eq!(sent, [wanted.unwrap()], "the slip as it was held, with its trace");
    let events = ground.outbox(&ground.topics.events());
    assert_eq!(events.len(), 1);
    let event = ground.reader.read(events[0].value.as_deref(), decode_event).await.unwrap();
    assert_eq!((event.job, event.kind, event.status), (parked, EventKind::JobResumed, JobStatus::Running));
    assert_eq!((event.hop, event.step.as_deref()), (4, Some("s")));
    let order = "select string_agg(split_part(topic, '.', 2), ',' order by txid, seq) from outbox.messages";
    assert_eq!(ground.sql(order), "events,steps");
    assert_eq!(ground.sql("select job from orchestrator.holds"), other.to_string());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_ends_a_rest_that_has_a_time_without_an_event() {
    const FAR_MS: Option<u64> = Some(3_600_000);
    let ground = Ground::new().await;
    let (looking, waiting) = (sample_job(), sample_job());
    rest(&ground, looking, 9, HoldReason::MissingStep, FAR_MS).await;
    rest(&ground, waiting, 5, HoldReason::Backoff, FAR_MS).await;
    // Told at its first look, it has looked again since.
    for (job, hop) in [(looking, 2), (looking, 2), (waiting, 4)] {
        say(&ground, job, hop).await;
    }
    let running = start(&ground);
    until_taken_in(&ground, &ground.topics.waits(), 5).await;
    let slip = |job, hop| slip_record(&ground.topics, &ground.writers, "default", &sample_slip(job, hop), &TEST_TRACE);
    assert_eq!(ground.outbox(&ground.topics.steps("default")), [slip(looking, 9).unwrap()], "once, as it was held");
    assert_eq!(ground.sql("select job from orchestrator.holds"), waiting.to_string(), "named by its exact hop only");
    say(&ground, waiting, 5).await;
    until(&ground, "select count(*) from outbox.messages", "2").await;
    assert_eq!(ground.outbox(&ground.topics.steps("default"))[1], slip(waiting, 5).unwrap());
    assert_eq!(ground.outbox(&ground.topics.events()), []);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_for_an_earlier_rest_does_not_touch_a_later_one() {
    let mut ground = Ground::new().await;
    let job = sample_job();
    let all = [start_zombie(&mut ground), start(&ground)];
    park(&ground, job, 2).await;
    say(&ground, job, 2).await;
    until(&ground, "select count(*) from outbox.messages", "2").await;
    park(&ground, job, 5).await;
    say(&ground, job, 2).await;
    until_taken_in(&ground, &ground.topics.waits(), 4).await;
    assert_eq!(ground.sql("select hop from orchestrator.holds"), "5");
    assert_eq!(ground.sql("select count(*) from outbox.messages"), "2");
    say(&ground, job, 5).await;
    until(&ground, "select count(*) from outbox.messages", "4").await;
    for running in all {
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_event_tells_what_the_projection_knows_of_the_flow() {
    let ground = Ground::new().await;
    let running = start(&ground);
    let job = sample_job();
    for (kind, status, hop) in
        [(EventKind::JobAccepted, JobStatus::Accepted, 0), (EventKind::JobParked, JobStatus::NeedsAttention, 1)]
    {
        ground.tell(&sample_event(job, kind, status, hop)).await;
    }
    until_taken_in(&ground, &ground.topics.events(), 2).await;
    park(&ground, job, 2).await;
    say(&ground, job, 2).await;
    until(&ground, "select count(*) from outbox.messages", "2").await;
    let record = ground.outbox(&ground.topics.events()).remove(0);
    let event = ground.reader.read(record.value.as_deref(), decode_event).await.unwrap();
    assert_eq!(event.steps_total, 2);
    // As the relay would do.
    ground.send(&record).await;
    until(&ground, "select status from orchestrator.jobs", "running").await;
    assert_eq!(stored(&ground, job).await.2, ["job.accepted", "job.parked", "job.resumed"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_that_names_nothing_and_a_signal_that_nobody_knows_are_kept_as_dead_letters() {
    let ground = Ground::new().await;
    let running = start(&ground);
    let job = sample_job();
    let signal = |name: &str| Signal {
        job,
        tenant: "default".to_owned(),
        name: name.to_owned(),
        id: "1".to_owned(),
        payload: Some(json!({ "hop": "four" })),
        at_ms: 1,
    };
    send(&ground, Wait::Signal(signal("meanwhile.resume"))).await;
    send(&ground, Wait::Signal(signal("meanwhile.approval"))).await;
    until_taken_in(&ground, &ground.topics.waits(), 2).await;
    let class = |record: &Inbound| events::dead_letter::burial(record).unwrap().failure.class;
    assert_eq!(refused(&ground).iter().map(class).collect::<Vec<_>>(), ["unreadable", "unsupported"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verdict_goes_on_with_the_slip_where_the_outcome_is_unknown_and_only_there() {
    let ground = Ground::new().await;
    let (unknown, known) = (sample_job(), sample_job());
    for (job, attempt_uncertain) in [(unknown, true), (known, false)] {
        let slip = Slip { attempt_uncertain, ..sample_slip(job, 4) };
        let (queue, reason) = ("default".to_owned(), HoldReason::Attention);
        let hold = Hold { slip, queue, reason, release_after_ms: None, signal: None, limit: None };
        send(&ground, Wait::Hold(hold)).await;
    }
    let verdict = Verdict { said: Said::Succeeded(json!({ "id": "C-1" })), by: "ann".to_owned() };
    for job in [known, unknown, unknown] {
        rule(&ground, job, 4, Some(verdict.clone())).await;
    }
    // Too late: the first word for a token counts.
    say(&ground, unknown, 4).await;
    let running = start(&ground);
    until_taken_in(&ground, &ground.topics.waits(), 6).await;
    let rests = "select job, reason, step from orchestrator.holds";
    assert_eq!(ground.sql(rests), format!("{known}|attention|s"), "it stays as it was");
    let sent = ground.outbox(&ground.topics.steps("default"));
    let [record] = &sent[..] else { panic!("{sent:?}") };
    let slip = ground.reader.read(record.value.as_deref(), decode_slip).await.unwrap();
    let released = slip.released.clone().unwrap();
    assert_eq!((slip.job, released.by, released.payload), (unknown, ReleasedBy::Operator, Some(verdict.to_json())));
    assert_eq!(slip.requires, [VERDICTS], "a worker that does not know of it would make the call again");
    let events = ground.outbox(&ground.topics.events());
    assert_eq!(events.len(), 1);
    let event = ground.reader.read(events[0].value.as_deref(), decode_event).await.unwrap();
    assert_eq!((event.kind, event.actor.as_deref()), (EventKind::JobResumed, Some("ann")));
    assert_eq!(event.data, Some(json!({ "outcome": "succeeded" })));
    // A plain word sends the other one on, as it is.
    say(&ground, known, 4).await;
    until(&ground, "select count(*) from orchestrator.holds", "0").await;
    let sent = ground.outbox(&ground.topics.steps("default"));
    let slip = ground.reader.read(sent[1].value.as_deref(), decode_slip).await.unwrap();
    assert_eq!((slip.job, slip.released, slip.requires), (known, None, vec![]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_that_a_step_was_undone_by_hand_goes_on_with_the_slip_of_a_job_on_its_way_back_only() {
    let ground = Ground::new().await;
    let (back, forward) = (sample_job(), sample_job());
    for (job, phase) in [(back, Phase::Undo), (forward, Phase::Forward)] {
        let slip = Slip { phase, attempt_uncertain: true, ..sample_slip(job, 4) };
        let (queue, reason) = ("default".to_owned(), HoldReason::Attention);
        send(&ground, Wait::Hold(Hold { slip, queue, reason, release_after_ms: None, signal: None, limit: None }))
            .await;
    }
    let verdict = Verdict { said: Said::Undone("ticket 17".to_owned()), by: "ann".to_owned() };
    let done = Verdict { said: Said::Failed, by: "ann".to_owned() };
    for (job, verdict) in [(forward, &verdict), (back, &verdict), (back, &done)] {
        rule(&ground, job, 4, Some(verdict.clone())).await;
    }
    let running = start(&ground);
    until_taken_in(&ground, &ground.topics.waits(), 5).await;
    assert_eq!(ground.sql("select job from orchestrator.holds"), forward.to_string(), "it stays as it was");
    let sent = ground.outbox(&ground.topics.steps("default"));
    let [record] = &sent[..] else { panic!("{sent:?}") };
    let slip = ground.reader.read(record.value.as_deref(), decode_slip).await.unwrap();
    assert_eq!((slip.job, slip.requires.as_slice()), (back, &[UNDONE_BY_HAND.to_owned()][..]));
    assert_eq!(slip.released.unwrap().payload, Some(verdict.to_json()));
    let events = ground.outbox(&ground.topics.events());
    let event = ground.reader.read(events[0].value.as_deref(), decode_event).await.unwrap();
    assert_eq!((event.kind, event.actor.as_deref()), (EventKind::JobResumed, Some("ann")));
    assert_eq!(event.data, Some(json!({ "outcome": "undone", "reason": "ticket 17" })));
    running.stop().await;
}
