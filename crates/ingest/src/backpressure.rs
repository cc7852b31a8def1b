//! Back-pressure from what is really behind: a queue that does not get its work done in time takes no new jobs.
//!
//! A queue is behind when slips have waited in it for longer than the bound, and what waits needs longer than half of
//! that at the pace of late. Both are needed: one slip that rests long while all others go on is no reason to refuse
//! anybody. For jobs of the lowest priority it is behind until half of their bound is reached again; others are taken
//! once they bear its age. Other queues are not affected.
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
}

impl Behind {
    /// The time until half of the bound is reached, at this pace.
    fn retry_after_s(self, bound_s: f64) -> u64 {
        let (least, most) = RETRY_AFTER_S;
        let surplus = (self.slips - self.pace * bound_s / 2.0).max(self.slips / 2.0);
        if self.pace > 0.0 { (surplus / self.pace).clamp(least, most) as u64 } else { most as u64 }
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
        let bears_s = bound_s * bears(flow.priority());
        let of_flow = flow.queues().into_iter().filter_map(|queue| Some((queue, *behind.get(queue)?)));
        let Some((queue, one)) = of_flow.max_by(|(_, one), (_, other)| one.age_s.total_cmp(&other.age_s)) else {
            return Ok(());
        };
        if flow.priority() != Priority::Bulk && one.age_s < bears_s {
            return Ok(());
        }
        let detail = format!(
            "Jobs have waited for {:.0} s in the queue `{queue}`, of which {:.0} are not done.",
            one.age_s, one.slips
        );
        Err(Problem::new(Kind::TemporaryReducedCapacity, detail).retry_after_s(one.retry_after_s(bound_s)))
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
            let was = behind.contains_key(name);
            let is = queue.is_behind(queues.bound, was);
            gauge!(SHEDDING, "queue" => name.clone()).set(if is { 1.0 } else { 0.0 });
            let Behind { age_s, slips, pace } = queue.now;
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
                behind.insert(name.clone(), queue.now);
            } else {
                behind.remove(name);
            }
        }
        behind.retain(|name, _| queues.queues.contains_key(name));
    }
}

/// The part of the bound that jobs of a priority bear: those of the lowest are refused first.
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
                now: Behind { age_s: 0.0, slips: 0.0, pace: 0.0 },
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

    /// Whether even the lowest priority is refused; a queue that was behind is until half of that is reached.
    fn is_behind(&self, bound: Duration, was: bool) -> bool {
        let lowest_s = bound.as_secs_f64() * bears(Priority::Bulk) * if was { 0.5 } else { 1.0 };
        let Behind { age_s, slips, pace } = self.now;
        let slips_min = if was { SLIPS_MIN / 2.0 } else { SLIPS_MIN };
        slips > slips_min && age_s > lowest_s && slips > pace * lowest_s / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(60);

    /// A queue of one partition, and its clock.
    struct Watched {
        topics: Topics,
        queues: Queues,
        pressure: Backpressure,
        at: Instant,
        offset: i64,
        end: i64,
    }

    impl Watched {
        fn new() -> Self {
            Self {
                topics: Topics::new("m"),
                queues: Queues { bound: BOUND, queues: BTreeMap::new() },
                pressure: Backpressure::new(BOUND.as_secs()),
                at: Instant::now(),
                offset: 10,
                end: 10,
            }
        }

        /// So many seconds in each of which slips come and are done; `held`: the first of them is not.
        fn pass(&mut self, seconds: u32, come: i64, done: i64, held: bool) {
            for _ in 0..seconds {
                self.at += Duration::from_secs(1);
                self.end += come;
                self.offset = (self.offset + done).min(self.end);
                let offset = if held { 10 } else { self.offset };
                let finished = if held { finished::encode(10, 11..self.offset.max(11)) } else { String::new() };
                let waiting = Waiting {
                    place: TopicPartition::new("m.steps.default", 0),
                    offset,
                    metadata: finished,
                    end: self.end,
                    records: (self.end - offset) as u64,
                    first: None,
                    oldest_ms: None,
                };
                self.queues.see(&self.topics, &[waiting], self.at);
                self.pressure.learn(&self.queues);
            }
        }

        fn refused(&self, priority: &str) -> Option<Problem> {
            self.refused_for(priority, "default")
        }

        fn refused_for(&self, priority: &str, queue: &str) -> Option<Problem> {
            let step = format!("{{ id: one, native: one, queue: {queue} }}");
            let text = format!("flow: order\npriority: {priority}\nsteps: [{step}]\n");
            let read = Definition::parse_yaml("t.yaml", &text, &mut |_| Err("no references here".to_owned()));
            self.pressure.check(&read.unwrap()).err()
        }
    }

    #[test]
    fn a_queue_whose_workers_stand_still_is_shed_from_the_lowest_priority_up_and_clears_at_half() {
        let mut queue = Watched::new();
        queue.pass(25, 10, 0, false);
        assert!(queue.refused("bulk").is_none());
        queue.pass(10, 10, 0, false);
        let problem = queue.refused("bulk").unwrap();
        assert_eq!(problem.kind(), Kind::TemporaryReducedCapacity);
        assert!(problem.detail().contains("`default`"), "{problem}");
        assert!(queue.refused("normal").is_none() && queue.refused_for("bulk", "other").is_none());
        queue.pass(30, 10, 0, false);
        assert!(queue.refused("normal").is_some() && queue.refused("urgent").is_none());
        queue.pass(60, 10, 0, false);
        assert!(queue.refused("urgent").is_some());
        // They go on, faster than jobs come; what is old is done first.
        queue.pass(40, 0, 20, false);
        assert!(queue.refused("urgent").is_none());
        assert!(queue.refused("bulk").is_some(), "not before half of its bound");
        queue.pass(40, 0, 20, false);
        assert!(queue.refused("bulk").is_none());
    }

    #[test]
    fn a_queue_that_catches_up_takes_the_lowest_priority_again_at_half_of_its_bound() {
        let mut queue = Watched::new();
        queue.pass(40, 100, 0, false);
        queue.pass(40, 100, 150, false);
        let age_s = queue.queues.queues["default"].now.age_s;
        assert!((16.0..30.0).contains(&age_s), "{age_s} s");
        assert!(queue.refused("bulk").is_some() && queue.refused("normal").is_none());
        queue.pass(20, 100, 150, false);
        assert!(queue.refused("bulk").is_none());
    }

    #[test]
    fn one_slip_that_is_not_done_while_all_others_are_stops_nobody() {
        let mut queue = Watched::new();
        queue.pass(5, 50, 0, true);
        queue.pass(200, 50, 50, true);
        assert!(queue.queues.queues["default"].now.slips > SLIPS_MIN);
        assert!(queue.queues.queues["default"].now.age_s > 150.0);
        assert!(queue.refused("bulk").is_none());
    }

    #[test]
    fn a_long_backlog_that_is_done_in_time_is_none() {
        let mut queue = Watched::new();
        queue.pass(1, 100_000, 0, false);
        queue.pass(40, 20_000, 20_000, false);
        assert!(queue.refused("bulk").is_none(), "five seconds' work");
    }

    #[test]
    fn a_caller_is_told_when_half_of_the_bound_is_reached() {
        let behind = |slips: f64, pace: f64| Behind { age_s: 100.0, slips, pace }.retry_after_s(60.0);
        assert_eq!((behind(1_000.0, 0.0), behind(1_000.0, 10.0), behind(1_000.0, 0.001)), (300, 70, 300));
        assert_eq!(behind(101.0, 1_000.0), 1);
    }

    #[test]
    fn marks_are_bounded_however_long_a_queue_stands() {
        let mut queue = Watched::new();
        queue.pass(5_000, 1, 0, false);
        let partition = queue.queues.queues["default"].partitions.values().next().unwrap();
        assert!(partition.marks.len() <= 400, "{}", partition.marks.len());
        assert!(partition.age(queue.at) > Duration::from_secs(4_900));
    }
}
