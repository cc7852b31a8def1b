//! Back-pressure from what is really behind: a queue that does not get its work done in time takes no new jobs.
//!
//! A queue is behind for a priority when slips have waited in it for longer than that priority's bound, and what waits
//! needs longer than half of that at the pace of late. Both are needed: one slip that rests long while all others go on
//! is no reason to refuse anybody. It stays behind until half of that bound is reached again, so that a queue at its
//! bound does not take and refuse by turns. Other queues are not affected.
//!
//! Ages are measured here, by this process's own clock, from when an end of the log was first seen: the times in
//! records are those of other machines. So a process that has just begun knows of no age yet. While Kafka does not
//! answer, the last verdict stays: jobs are accepted without Kafka.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bus::{Backlog, TopicPartition, Waiting};
use events::finished;
use events::topic::Topics;
use flow::definition::{Definition, Priority};
use metrics::{describe_gauge, gauge};
use parking_lot::RwLock;
use service_kit::error_chain;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use web::problem::{Kind, Problem};

const SHEDDING: &str = "meanwhile_queue_shedding";
/// The pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Fewer slips are no backlog.
const SLIPS_MIN: f64 = 100.0;
/// The time over which the pace is averaged.
const PACE_WINDOW_S: f64 = 20.0;
/// Ages are exact to this part of the bound. Four times as many ends are remembered for each partition.
const MARKS_MAX: u32 = 100;
/// What `Retry-After` says, in seconds: at least, at most, and while nothing is being done.
const RETRY_AFTER_S: (f64, f64) = (1.0, 300.0);

/// A queue that is behind.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Behind {
    age_s: f64,
    /// Slips that wait.
    slips: f64,
    /// What is done in a second.
    pace: f64,
    /// The highest priority that is refused; all below it are, too.
    refused: Option<Priority>,
}

impl Behind {
    /// The time until half of a priority's bound is reached, at this pace.
    fn retry_after_s(self, bound_s: f64) -> u64 {
        let (least, most) = RETRY_AFTER_S;
        let surplus = (self.slips - self.pace * bound_s / 2.0).max(self.slips / 2.0);
        if self.pace > 0.0 { (surplus / self.pace).clamp(least, most) as u64 } else { most as u64 }
    }

    fn refuses(self, priority: Priority) -> bool {
        self.refused >= Some(priority)
    }
}

/// The queues that are behind.
#[derive(Debug)]
pub(crate) struct Backpressure {
    bound: Option<Duration>,
    behind: RwLock<BTreeMap<String, Behind>>,
}

impl Backpressure {
    /// With a bound of 0 no queue is ever behind.
    pub(crate) fn new(bound_s: u64) -> Self {
        Self { bound: (bound_s > 0).then(|| Duration::from_secs(bound_s)), behind: RwLock::default() }
    }

    /// # Errors
    /// The problem 503 for a job of a flow whose queues are behind by more than its priority bears.
    pub(crate) fn check(&self, flow: &Definition) -> Result<(), Problem> {
        let Some(bound_s) = self.bound.map(|bound| bound.as_secs_f64()) else { return Ok(()) };
        let behind = self.behind.read();
        if behind.is_empty() {
            return Ok(());
        }
        let priority = flow.priority();
        let of_flow = flow.queues().into_iter().filter_map(|queue| Some((queue, *behind.get(queue)?)));
        let refusing = of_flow.filter(|(_, one)| one.refuses(priority));
        let Some((queue, one)) = refusing.max_by(|(_, one), (_, other)| one.age_s.total_cmp(&other.age_s)) else {
            return Ok(());
        };
        let detail = format!(
            "Jobs have waited for {:.0} s in the queue `{queue}`, of which {:.0} are not done.",
            one.age_s, one.slips
        );
        Err(Problem::new(Kind::TemporaryReducedCapacity, detail)
            .retry_after_s(one.retry_after_s(bound_s * bears(priority))))
    }

    /// Looks at the queues until shutdown.
    pub(crate) async fn watch(
        &self,
        bus: &bus::Settings,
        topics: &Topics,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<()> {
        let Some(bound) = self.bound else { return Ok(()) };
        describe_gauge!(SHEDDING, "1: the queue is so far behind that jobs for it are refused");
        let backlog = Backlog::new(bus, &topics.workers_group())?;
        let mut queues = Queues { bound, queues: BTreeMap::new() };
        loop {
            match shutdown.run_until_cancelled(backlog.look(&topics.steps(""))).await {
                None => return Ok(()),
                Some(Ok(waiting)) => {
                    queues.see(topics, &waiting, Instant::now());
                    self.learn(&queues);
                }
                Some(Err(error)) => tracing::debug!(error = error_chain(&error), "queues cannot be looked at"),
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(LOOK_INTERVAL)).await.is_none() {
                return Ok(());
            }
        }
    }

    fn learn(&self, queues: &Queues) {
        let mut behind = self.behind.write();
        for (name, queue) in &queues.queues {
            let before = behind.get(name).and_then(|one| one.refused);
            let refused = queue.refused(queues.bound, before);
            let (was, is) = (before.is_some(), refused.is_some());
            gauge!(SHEDDING, "queue" => name.clone()).set(if is { 1.0 } else { 0.0 });
            let Behind { age_s, slips, pace, .. } = queue.now;
            match (was, is) {
                (false, true) => {
                    tracing::warn!(queue = name, age_s, slips, pace, "a queue is behind; jobs for it are refused")
                }
                (true, false) => {
                    tracing::info!(queue = name, age_s, slips, pace, "a queue has caught up; jobs for it are taken")
                }
                _ => {}
            }
            if is {
                behind.insert(name.clone(), Behind { refused, ..queue.now });
            } else {
                behind.remove(name);
            }
        }
        behind.retain(|name, _| queues.queues.contains_key(name));
    }
}

/// The part of the bound that jobs of a priority bear.
const fn bears(priority: Priority) -> f64 {
    match priority {
        Priority::Bulk => 0.5,
        Priority::Normal => 1.0,
        Priority::Urgent => 2.0,
    }
}

/// What was seen of all queues.
struct Queues {
    bound: Duration,
    queues: BTreeMap<String, Queue>,
}

/// What was seen of one queue.
struct Queue {
    partitions: BTreeMap<TopicPartition, Partition>,
    now: Behind,
    seen_at: Instant,
}

/// What was seen of one partition.
#[derive(Default)]
struct Partition {
    /// When the log's end was seen to be there, the earliest first; only ends that are not done.
    marks: VecDeque<(Instant, i64)>,
    /// Offsets that are done.
    done: i64,
}

impl Partition {
    /// Takes in a look. Returns how many offsets were done since the last one.
    fn see(&mut self, waiting: &Waiting, finished: i64, at: Instant, bound: Duration) -> i64 {
        while self.marks.front().is_some_and(|(_, end)| *end <= waiting.offset) {
            self.marks.pop_front();
        }
        let is_old = self.marks.back().is_none_or(|(last, _)| at - *last >= bound / MARKS_MAX);
        let is_news = self.marks.back().map_or(waiting.offset, |(_, end)| *end) < waiting.end;
        if is_news && is_old && waiting.records > 0 {
            if self.marks.len() >= 4 * MARKS_MAX as usize {
                // Every second one: ages of a queue that stands for long need not be exact.
                let mut keep = false;
                self.marks.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
            self.marks.push_back((at, waiting.end));
        }
        let before = std::mem::replace(&mut self.done, waiting.offset + finished);
        // A topic that was made anew begins at 0.
        if before == 0 { 0 } else { (self.done - before).max(0) }
    }

    fn age(&self, now: Instant) -> Duration {
        self.marks.front().map_or(Duration::ZERO, |(since, _)| now - *since)
    }
}

impl Queues {
    fn see(&mut self, topics: &Topics, waiting: &[Waiting], at: Instant) {
        let mut by_queue: BTreeMap<&str, Vec<&Waiting>> = BTreeMap::new();
        for one in waiting {
            if let Some(queue) = topics.queue_of(&one.place.topic) {
                by_queue.entry(queue).or_default().push(one);
            }
        }
        self.queues.retain(|name, _| by_queue.contains_key(name.as_str()));
        for (name, waiting) in by_queue {
            let queue = self.queues.entry(name.to_owned()).or_insert_with(|| Queue {
                partitions: BTreeMap::new(),
                now: Behind { age_s: 0.0, slips: 0.0, pace: 0.0, refused: None },
                seen_at: at,
            });
            queue.see(&waiting, at, self.bound);
        }
    }
}

impl Queue {
    fn see(&mut self, waiting: &[&Waiting], at: Instant, bound: Duration) {
        let (mut slips, mut done, mut age) = (0.0, 0.0, Duration::ZERO);
        for one in waiting {
            let finished = finished::count(one.offset, &one.metadata);
            let partition = self.partitions.entry(one.place.clone()).or_default();
            // Transaction markers take offsets, too.
            let density = one.records as f64 / (one.end - one.offset).max(1) as f64;
            let density = if one.records == 0 { 1.0 } else { density };
            done += partition.see(one, finished.cast_signed(), at, bound) as f64 * density;
            slips += one.records.saturating_sub(finished) as f64;
            age = age.max(partition.age(at));
        }
        let passed_s = (at - std::mem::replace(&mut self.seen_at, at)).as_secs_f64();
        if passed_s > 0.0 {
            let share = (passed_s / PACE_WINDOW_S).min(1.0);
            self.now.pace += (done / passed_s - self.now.pace) * share;
        }
        (self.now.slips, self.now.age_s) = (slips, age.as_secs_f64());
    }

    /// The highest priority that is refused, where `before` was.
    fn refused(&self, bound: Duration, before: Option<Priority>) -> Option<Priority> {
        let bears_s = |priority| bound.as_secs_f64() * bears(priority);
        let is = |priority: &Priority| self.is_behind(bears_s(*priority), before >= Some(*priority));
        Priority::ALL.into_iter().take_while(is).last()
    }

    /// Whether a priority that bears so many seconds is refused; one that was is until half of them is reached.
    fn is_behind(&self, bears_s: f64, was: bool) -> bool {
        let Behind { age_s, slips, pace, .. } = self.now;
        let (least_s, slips_min) = if was { (bears_s / 2.0, SLIPS_MIN / 2.0) } else { (bears_s, SLIPS_MIN) };
        slips > slips_min && age_s > least_s && slips > pace * least_s / 2.0
    }
}

#[cfg(test)]
mod tests;
