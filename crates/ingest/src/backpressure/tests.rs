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
fn each_priority_is_taken_again_at_half_of_its_own_bound_and_not_at_the_whole() {
    let mut queue = Watched::new();
    queue.pass(150, 100, 0, false);
    let all = ["urgent", "normal", "bulk"];
    assert!(all.iter().all(|priority| queue.refused(priority).is_some()));
    // What waited first is done first, half as fast again as more comes: the age falls by and by.
    let mut taken_at_s: Vec<(&str, f64)> = Vec::new();
    while taken_at_s.len() < all.len() {
        queue.pass(1, 100, 150, false);
        let age_s = queue.queues.queues["default"].now.age_s;
        assert!(age_s > 5.0, "{taken_at_s:?}");
        let taken = taken_at_s.len();
        let news = all[taken..].iter().filter(|priority| queue.refused(priority).is_none());
        taken_at_s.extend(news.map(|priority| (*priority, age_s)).collect::<Vec<_>>());
    }
    // Bounds of 120, 60 and 30 s.
    for ((priority, at_s), half_s) in taken_at_s.iter().zip([60.0, 30.0, 15.0]) {
        assert!((half_s - 2.0..=half_s).contains(at_s), "{priority} at {at_s} s");
    }
}

#[test]
fn a_queue_that_comes_and_goes_about_a_bound_is_refused_once() {
    for (priority, bound_s) in [("bulk", 30), ("normal", 60), ("urgent", 120)] {
        let mut queue = Watched::new();
        queue.pass(bound_s + 2, 10, 0, false);
        assert!(queue.refused(priority).is_some());
        for _ in 0..20 {
            queue.pass(6, 10, 14, false);
            assert!(queue.refused(priority).is_some(), "{priority}");
            queue.pass(6, 10, 6, false);
        }
    }
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
    let behind = |slips: f64, pace: f64| Behind { age_s: 100.0, slips, pace, refused: None }.retry_after_s(60.0);
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
