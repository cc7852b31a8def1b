//! Events become rows: one write per job and batch, never back, never twice.

use events::headers::Headers;
use flow::event::{EventKind, JobEvent, JobStatus};
use flow::id::JobId;
use test_kit::{Ground, sample_event, sample_job};

use crate::stage::{start, start_zombie, stored, until, until_taken_in};

const KINDS: [&str; 5] = ["job.accepted", "step.succeeded", "step.retrying", "step.succeeded", "job.succeeded"];

fn story(job: JobId) -> [JobEvent; 5] {
    let event = |kind, status, hop| sample_event(job, kind, status, hop);
    [
        event(EventKind::JobAccepted, JobStatus::Accepted, 0),
        event(EventKind::StepSucceeded, JobStatus::Running, 1),
        event(EventKind::StepRetrying, JobStatus::Waiting, 2),
        event(EventKind::StepSucceeded, JobStatus::Running, 3),
        JobEvent { index: 1, ..event(EventKind::JobSucceeded, JobStatus::Succeeded, 3) },
    ]
}

/// Counts the writes of each job's row.
fn count_writes(ground: &Ground) {
    ground.sql(
        "create table public.writes (job uuid);
         create function public.count_write() returns trigger language plpgsql security definer as
            $$ begin insert into public.writes values (new.job); return null; end $$;
         create trigger count_write after insert or update on orchestrator.jobs
            for each row execute function public.count_write()",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_events_of_a_job_in_one_batch_cost_one_write_and_it_is_never_written_back() {
    let ground = Ground::new().await;
    count_writes(&ground);
    let jobs: Vec<JobId> = (0..50).map(|_| sample_job()).collect();
    let mut last = Vec::new();
    for job in &jobs {
        for event in story(*job) {
            last.push((*job, ground.tell(&event).await));
        }
    }
    let running = start(&ground);
    until_taken_in(&ground, &ground.topics.events(), 250).await;
    // A job's events lie side by side, so only a batch's end can part them.
    let writes: usize = ground.sql("select count(*) from public.writes").parse().unwrap();
    assert!((50..100).contains(&writes), "{writes} writes for 250 events of 50 jobs");
    for job in &jobs {
        let cursor = last.iter().rev().find(|(of, _)| of == job).unwrap().1.1;
        assert_eq!(stored(&ground, *job).await, ("succeeded".to_owned(), cursor, KINDS.map(str::to_owned).to_vec()));
    }
    // Somebody sets the stored positions back: everything is read again, and nothing changes.
    ground.sql("update orchestrator.offsets set next_offset = 1");
    for job in &jobs {
        ground.tell(&sample_event(*job, EventKind::JobFailed, JobStatus::Failed, 9)).await;
    }
    until_taken_in(&ground, &ground.topics.events(), 300).await;
    let (_, _, kinds) = stored(&ground, jobs[0]).await;
    assert_eq!(kinds, [&KINDS[..], &["job.failed"]].concat(), "each event once");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_somebody_else_moved_is_read_again_and_not_written_over() {
    let ground = Ground::new().await;
    let (job, running) = (sample_job(), start(&ground));
    let [accepted, skipped, _, _, end] = story(job);
    ground.tell(&accepted).await;
    until_taken_in(&ground, &ground.topics.events(), 1).await;
    // As another orchestrator does that has the partition now, and has taken in one record more.
    ground.sql("update orchestrator.offsets set next_offset = next_offset + 1");
    ground.tell(&skipped).await;
    ground.tell(&end).await;
    until_taken_in(&ground, &ground.topics.events(), 3).await;
    let (status, _, kinds) = stored(&ground, job).await;
    assert_eq!(status, "succeeded");
    assert_eq!(kinds, ["job.accepted", "job.succeeded"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_orchestrators_that_both_believe_to_own_everything_write_it_once() {
    let mut ground = Ground::new().await;
    count_writes(&ground);
    let (zombie, running) = (start_zombie(&mut ground), start(&ground));
    let jobs: Vec<JobId> = (0..200).map(|_| sample_job()).collect();
    for number in 0..5 {
        for job in &jobs {
            ground.tell(&story(*job)[number]).await;
        }
        let bad = events::Record {
            topic: ground.topics.waits(),
            key: Some(format!("{number}").into_bytes()),
            value: Some(format!("no wait {number}").into_bytes()),
            headers: Headers::default(),
        };
        ground.send(&bad).await;
    }
    until_taken_in(&ground, &ground.topics.events(), 1_000).await;
    until_taken_in(&ground, &ground.topics.waits(), 5).await;
    until(&ground, "select count(*) from orchestrator.jobs where status = 'succeeded'", "200").await;
    running.stop().await;
    zombie.stop().await;
    for job in &jobs {
        assert_eq!(stored(&ground, *job).await.2, KINDS);
    }
    // Applied twice, the lines would stand twice, even where reading shows them once.
    let lines = "select sum(length(convert_from(history, 'utf8')) - length(replace(convert_from(history, 'utf8'), \
                 E'\\n', ''))) from orchestrator.jobs";
    assert_eq!(ground.sql(lines), "1000");
    assert_eq!(crate::stage::refused(&ground).len(), 5, "one dead letter for each bad record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_postgres_refuses_is_buried_alone() {
    let ground = Ground::new().await;
    let good: Vec<JobId> = (0..20).map(|_| sample_job()).collect();
    for (number, job) in good.iter().enumerate() {
        let [accepted, ..] = story(*job);
        ground.tell(&accepted).await;
        if number % 7 == 3 {
            // Postgres' text takes no NUL; Avro's string does.
            let [mut bad, ..] = story(sample_job());
            "a\0b".clone_into(&mut bad.key);
            ground.tell(&bad).await;
        }
    }
    let running = start(&ground);
    until_taken_in(&ground, &ground.topics.events(), 23).await;
    assert_eq!(ground.sql("select count(*) from orchestrator.jobs"), "20");
    let refused = crate::stage::refused(&ground);
    assert_eq!(refused.len(), 3);
    for letter in &refused {
        let burial = events::dead_letter::burial(letter).unwrap();
        assert_eq!((burial.failure.class.as_str(), burial.topic), ("not-storable", ground.topics.events()));
    }
    running.stop().await;
}
