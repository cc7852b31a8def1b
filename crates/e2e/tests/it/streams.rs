//! Thousands of streams of events at one ingest: figures for `docs/performance.md`.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bus::{Producer, Reader, Registry};
use events::event_record;
use flow::event::{EventKind, JobStatus};
use flow::id::JobId;
use serde_json::json;
use test_kit::{Role, TEST_TRACE, eventually, http_client, sample_event};
use tokio::task::JoinSet;

use crate::client::small_order;
use crate::stage::{PATIENCE, Stage};
use crate::turn::nearly_alone;
use crate::waits::rss_mib;

/// Connections by HTTP/2 that share the streams.
const CONNECTIONS: usize = 64;
/// The time before what is measured, and its time.
const WARM: Duration = Duration::from_secs(10);
const MEASURED: Duration = Duration::from_secs(30);
/// Portions of a second's events.
const PORTIONS: usize = 50;
/// Ticks of the kernel's clock in a second, as it counts the time of processes.
const TICKS_PER_S: f64 = 100.0;

/// The processor time of a process, in seconds.
fn cpu_s(id: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS_PER_S
}

/// Counts the events of a stream until it ends.
async fn count(client: reqwest::Client, url: String, told: Arc<AtomicUsize>) {
    let mut response = client.get(url).header("accept", "text/event-stream").send().await.unwrap();
    assert_eq!(response.status(), 200);
    while let Ok(Some(chunk)) = response.chunk().await {
        told.fetch_add(chunk.windows(6).filter(|bytes| bytes == b"\ndata:").count(), Ordering::Relaxed);
    }
}

/// Jobs that no worker takes: what their streams tell comes from here.
async fn submit(stage: &Stage, jobs: usize) -> Vec<JobId> {
    let items: Vec<_> = (0..jobs).map(|n| json!({ "input": small_order(&format!("c-{n}"), json!({})) })).collect();
    let url = format!("{}/v1/flows/consent/jobs:batch", stage.system.api());
    let answer: serde_json::Value = http_client().post(url).json(&items).send().await.unwrap().json().await.unwrap();
    let id = |item: &serde_json::Value| item["id"].as_str().unwrap_or_else(|| panic!("{item}")).parse().unwrap();
    answer["items"].as_array().unwrap_or_else(|| panic!("{answer}")).iter().map(id).collect()
}

/// Sends one event of each job each second, evenly.
async fn tell(stage: &Stage, jobs: &[JobId]) {
    let settings = stage.system.settings();
    let (topics, producer) = (stage.system.topics(), Producer::new(&settings).unwrap());
    let registry = Registry::new(&settings.registry_url, None).unwrap();
    let writers = Reader::new(registry).writer_ids(&topics).await.unwrap();
    let mut pace = tokio::time::interval(Duration::from_secs(1) / u32::try_from(PORTIONS).unwrap());
    for hop in 1.. {
        for portion in jobs.chunks(jobs.len().div_ceil(PORTIONS)) {
            pace.tick().await;
            let mut sent = JoinSet::new();
            for job in portion {
                let mut event = sample_event(*job, EventKind::StepRetrying, JobStatus::Running, hop);
                "default".clone_into(&mut event.facts.tenant);
                let record = event_record(&topics, &writers, &event, &TEST_TRACE).unwrap();
                let producer = producer.clone();
                sent.spawn(async move { producer.send(&record).await });
            }
            assert!(sent.join_all().await.iter().all(Result::is_ok));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures for docs/performance.md: cargo test --workspace --test it streams -- --ignored --nocapture"]
async fn five_thousand_streams_of_an_event_a_second_each() {
    let streams = std::env::var("E2E_STREAMS").map_or(5_000, |text| text.parse().expect("a number"));
    let _turn = nearly_alone().await;
    let mut stage = Stage::start().await;
    stage.system.role(Role::Workers).process().kill9();
    let jobs = submit(&stage, streams).await;
    assert_eq!(jobs.len(), streams);
    stage.system.except(jobs.iter().copied());
    let ingest = stage.system.role(Role::Ingest).process().id();
    let before = rss_mib(ingest);
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap())
        .collect();
    let (mut open, told) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for (number, job) in jobs.iter().enumerate() {
        let url = format!("{}/v1/jobs/{job}/events", stage.system.api());
        open.spawn(count(clients[number % CONNECTIONS].clone(), url, Arc::clone(&told)));
    }
    eventually(PATIENCE, "all are open", async || {
        let open = stage.system.role(Role::Ingest).metric("meanwhile_streams", "").await.ok()?;
        (open as usize == streams).then_some(())
    })
    .await;
    let idle = rss_mib(ingest);
    let measure = async {
        tokio::time::sleep(WARM).await;
        let (began, cpu, events) = (Instant::now(), cpu_s(ingest), told.load(Ordering::Relaxed));
        tokio::time::sleep(MEASURED).await;
        let (seconds, events) = (began.elapsed().as_secs_f64(), told.load(Ordering::Relaxed) - events);
        (events as f64 / seconds, (cpu_s(ingest) - cpu) / seconds, rss_mib(ingest))
    };
    let (rate, cores, busy) = tokio::select! {
        measured = measure => measured,
        () = tell(&stage, &jobs) => unreachable!("it goes on"),
    };
    eprintln!(
        "{streams} streams: {rate:.0} events/s told, {:.0} % of a core, {:.0} us an event; {before:.0} MiB before, \
         {idle:.0} MiB with the streams, {busy:.0} MiB under load",
        cores * 100.0,
        cores / rate * 1e6
    );
    assert_eq!(open.len(), streams, "none was dropped");
    open.abort_all();
    stage.system.finish_as_it_is().await.unwrap();
}
