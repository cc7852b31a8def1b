//! A steady load: so many jobs in flight until it is told to stop, most of them fine, some declined, flaky or
//! uncertain.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bus::{Reader, Registry, Table};
use client::Client;
use events::decode_event;
use flow::id::JobId;
use parking_lot::Mutex;
use serde_json::{Value, json};
use test_kit::eventually;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::client::small_order;
use crate::operators::{Deeds, Door, Operators};
use crate::stage::{PATIENCE, Stage};

/// The pause between two attempts of a caller.
const AGAIN: Duration = Duration::from_millis(100);
/// Callers at once.
const CALLERS: u64 = 48;
/// Ordering keys: most jobs have one of their own, some share one.
const CUSTOMERS: u64 = 20_000;
/// Only ends a test that hangs: longer than the flows of `later` wait for a callback that was lost.
const CALLBACKS_WITHIN: Duration = Duration::from_secs(480);
/// Steps that are so long, ms, keep many jobs in flight with little work; well below the flow's time-out.
const SLOW_MS_MAX: u64 = 8_000;
/// Steps that are so short, ms, keep everything moving.
const BRISK_MS_MAX: u64 = 100;

/// Jobs whose services accept the work and end it later, or that must not be called twice.
fn draw_later(chance: &mut Chance) -> (&'static str, Value) {
    let customer = format!("c-{}", chance.below(CUSTOMERS));
    let mut word = |words: &[&str]| words[chance.below(words.len() as u64) as usize].to_owned();
    let well = ["early", "after:50", "after:4000", "twice:100", "unanswered:4000", "retry_once"];
    let shipping = word(&["after:300", "silent", "after:2000"]);
    match word(&["later", "later", "register", "cash"]).as_str() {
        "cash" => {
            let payment = word(&["slow:200", "timeout_after_effect:4000", "timeout_before_effect:4000", "declined"]);
            ("cash", small_order(&customer, json!({ "payment": payment })))
        }
        "register" => ("register", json!({ "customer_id": customer, "payment": word(&well), "shipping": shipping })),
        _ => {
            let payment =
                if word(&["well", "well", "well", "badly"]) == "badly" { "failed".to_owned() } else { word(&well) };
            ("later", json!({ "customer_id": customer, "payment": payment, "shipping": shipping }))
        }
    }
}

/// Jobs with a native step, a step with a time of its own, and others with another way on; and charges that nobody but
/// a person can tell the end of.
fn draw_by_hand(chance: &mut Chance) -> (&'static str, Value) {
    let customer = format!("c-{}", chance.below(CUSTOMERS));
    let mut word = |words: &[&str]| words[chance.below(words.len() as u64) as usize].to_owned();
    if word(&["native", "native", "blind"]) == "blind" {
        let payment =
            word(&["slow:200", "slow:200", "timeout_after_effect:4000", "timeout_before_effect:4000", "declined"]);
        return ("blind", small_order(&customer, json!({ "payment": payment })));
    }
    let inventory = word(&["slow:100", "slow:4000", "flaky:2"]);
    // The last ones do not end within the time of the step.
    let payment = word(&["slow:100", "slow:100", "slow:100", "flaky:30", "timeout_after_effect:4000"]);
    let mut order = small_order(&customer, json!({ "inventory": inventory, "payment": payment }));
    order["hangs"] = (word(&["", "", "", "", "hangs"]) == "hangs").into();
    ("native", order)
}

/// What a load is made of.
#[derive(Debug, Clone, Copy)]
struct Mix {
    /// Steps take at most so long.
    slow_ms_max: u64,
    /// With the flows of `crates/e2e/later`, and with cancels: steps of every kind.
    is_whole: bool,
}

/// A running load.
#[derive(Debug)]
pub(crate) struct Load {
    counts: Arc<Counts>,
    callers: JoinSet<()>,
    watcher: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
    operators: Option<Operators>,
}

#[derive(Debug)]
struct Counts {
    room: Semaphore,
    ended: AtomicUsize,
    accepted: Mutex<Vec<JobId>>,
}

impl Counts {
    fn accepted(&self) -> parking_lot::MutexGuard<'_, Vec<JobId>> {
        self.accepted.lock()
    }

    fn in_flight(&self) -> usize {
        self.accepted().len().saturating_sub(self.ended.load(Ordering::SeqCst))
    }
}

/// The fate that one job is given.
fn draw(chance: &mut Chance, slow_ms_max: u64) -> (&'static str, Value) {
    let customer = format!("c-{}", chance.below(CUSTOMERS));
    let mut slow = || format!("slow:{}", chance.below(slow_ms_max));
    let (inventory, payment, shipping) = (slow(), slow(), slow());
    let simulate = match chance.below(100) {
        0..8 => json!({ "inventory": inventory, "payment": "declined" }),
        8..14 => json!({ "inventory": inventory, "payment": payment, "shipping": "flaky:2" }),
        14..18 => json!({ "inventory": inventory, "payment": "busy:1", "shipping": shipping }),
        18..20 => json!({ "inventory": "undo_flaky:2", "payment": payment, "shipping": "out_of_stock" }),
        // Services that do not honour keys, of which whoever repeats a call learns nothing.
        23..29 => json!({ "inventory": inventory, "payment": format!("once:{}", chance.below(slow_ms_max)) }),
        21..23 => return ("consent", small_order(&customer, json!({}))),
        20 => return ("patient", small_order(&customer, json!({ "payment": "timeout_after_effect:3000" }))),
        _ => json!({ "inventory": inventory, "payment": payment, "shipping": shipping }),
    };
    ("saga", small_order(&customer, simulate))
}

impl Load {
    /// Keeps `in_flight` jobs in flight, with steps of some seconds.
    pub(crate) async fn start(stage: &Stage, seed: u64, in_flight: usize) -> Self {
        Self::start_with(stage, seed, in_flight, Mix { slow_ms_max: SLOW_MS_MAX, is_whole: false }).await
    }

    /// The same, and jobs whose services answer later, that are cancelled, or that must not call twice.
    pub(crate) async fn start_whole(stage: &Stage, seed: u64, in_flight: usize) -> Self {
        Self::start_with(stage, seed, in_flight, Mix { slow_ms_max: SLOW_MS_MAX, is_whole: true }).await
    }

    /// The same with short steps.
    pub(crate) async fn start_brisk(stage: &Stage, seed: u64, in_flight: usize) -> Self {
        Self::start_with(stage, seed, in_flight, Mix { slow_ms_max: BRISK_MS_MAX, is_whole: false }).await
    }

    async fn start_with(stage: &Stage, seed: u64, in_flight: usize, mix: Mix) -> Self {
        let counts = Counts { room: Semaphore::new(in_flight), ended: AtomicUsize::new(0), accepted: Mutex::default() };
        let (counts, stop) = (Arc::new(counts), CancellationToken::new());
        let (settings, topics) = (stage.system.settings(), stage.system.topics());
        let reader = Reader::new(Registry::new(stage.system.registry_url(), None).unwrap());
        let (_, mut tail) = Table::load(&settings, &topics.events()).await.unwrap();
        let watched = counts.clone();
        let watcher = tokio::spawn(async move {
            while let Some(records) = tail.next().await {
                for record in records {
                    let event = reader.read(record.value.as_deref(), decode_event).await;
                    if event.is_ok_and(|event| event.status.is_final()) {
                        watched.ended.fetch_add(1, Ordering::SeqCst);
                        watched.room.add_permits(1);
                    }
                }
            }
        });
        let operators = mix.is_whole.then(|| Operators::start(stage, seed));
        let door = Door::of(stage);
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let chance = Chance::new(seed.wrapping_mul(1_000).wrapping_add(caller));
            callers.spawn(call(counts.clone(), stop.clone(), (stage.system.client(), door.clone()), chance, mix));
        }
        Self { counts, callers, watcher, stop, operators }
    }

    /// Waits until at least so many jobs are in flight.
    pub(crate) async fn until_in_flight(&self, jobs: usize) {
        let enough = async || (self.counts.in_flight() >= jobs).then_some(());
        eventually(PATIENCE, &format!("{jobs} jobs in flight"), enough).await;
    }

    /// Waits until so many more jobs have ended.
    pub(crate) async fn until_ended_more(&self, jobs: usize) {
        let ended = || self.counts.ended.load(Ordering::SeqCst);
        let until = ended() + jobs;
        eventually(PATIENCE, &format!("{jobs} more jobs end"), async || (ended() >= until).then_some(())).await;
    }

    /// Submits no more; the jobs that were accepted are the stage's to wait for. Returns how many they are.
    pub(crate) async fn end(self, stage: &mut Stage) -> usize {
        self.end_whole(stage).await.0
    }

    /// The same, and what operators have done: they go on until every job has ended.
    pub(crate) async fn end_whole(mut self, stage: &mut Stage) -> (usize, Arc<Deeds>) {
        self.stop.cancel();
        while let Some(caller) = self.callers.join_next().await {
            caller.unwrap();
        }
        let deeds = match self.operators.take() {
            Some(operators) => {
                let all = async || (self.counts.in_flight() == 0).then_some(());
                eventually(CALLBACKS_WITHIN, "every job ends, with the operators' help", all).await;
                operators.end().await
            }
            None => Arc::default(),
        };
        self.watcher.abort();
        let accepted = std::mem::take(&mut *self.counts.accepted());
        stage.system.note_accepted(accepted.iter().copied());
        (accepted.len(), deeds)
    }
}

async fn call(
    counts: Arc<Counts>,
    stop: CancellationToken,
    (client, door): (Client, Door),
    mut chance: Chance,
    mix: Mix,
) {
    loop {
        let Some(room) = stop.run_until_cancelled(counts.room.acquire()).await else { return };
        room.unwrap().forget();
        let (flow, input) = match chance.below(100) {
            0..30 if mix.is_whole => draw_later(&mut chance),
            30..50 if mix.is_whole => draw_by_hand(&mut chance),
            _ => draw(&mut chance, mix.slow_ms_max),
        };
        let key = uuid::Uuid::now_v7().to_string();
        let job = match mix.is_whole && flow == "saga" && chance.below(20) == 0 {
            true => door.submit_misspelt(&key, &input).await,
            false => test_kit::submit(&client, flow, &key, &input).await.unwrap(),
        };
        counts.accepted().push(job);
        if flow == "consent" {
            // Often before the job waits for it, sometimes after.
            pass(chance.ms_below(1_000)).await;
            signal(&client, job, "consent", r#"{"n":1}"#).await;
        }
        if mix.is_whole && chance.below(100) < 4 {
            pass(chance.ms_below(1_000)).await;
            cancel(&client, job).await;
        }
    }
}

/// Cancels the job, or learns that it is over.
async fn cancel(client: &Client, job: JobId) {
    let cancelling = async {
        loop {
            match client.cancel(&job.to_string(), Some("chance")).await {
                Ok(()) => return,
                Err(client::Error::Problem(problem)) if matches!(problem.status, 404 | 409) => return,
                Err(error) if error.may_pass() => pass(AGAIN).await,
                Err(error) => panic!("{job}: {error}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, cancelling).await.expect("the cancel is stored");
}

/// Sends a signal until it is known to be stored.
pub(crate) async fn signal(client: &Client, job: JobId, name: &str, payload: &str) {
    let sending = async {
        loop {
            match client.signal(&job.to_string(), name, Some(payload.to_owned()), Some("once")).await {
                Ok(_) => return,
                // It has come and the job is over, or the job is lost with a server, which the books do not forgive.
                Err(client::Error::Problem(problem)) if matches!(problem.status, 404 | 409) => return,
                Err(error) if error.may_pass() => pass(AGAIN).await,
                Err(error) => panic!("{job}: {error}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, sending).await.expect("the signal is stored");
}

/// Lets time pass: the moment of a fault is chance, not a condition.
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}
