use super::*;

const CONFIG: BreakerConfig = BreakerConfig {
    pause_ms: 5_000,
    pause_ms_max: 15_000,
    probe_timeout_ms: 30_000,
    release_per_s: 10,
    release_per_s_max: 100,
};

fn closed() -> BreakerRow {
    BreakerRow {
        downstream: "payment".to_owned(),
        phase: Phase::Closed,
        epoch: 0,
        forced: false,
        due_in_ms: None,
        pause_ms: 0,
        release_per_s: 0.0,
        released_to_us: None,
        reason: String::new(),
        ordered_by: None,
        openings: 0,
    }
}

fn failing(breaker: &mut BreakerRow) -> bool {
    let epoch = breaker.epoch;
    hear(breaker, &BreakerSaid::Failing { epoch, calls: 40, failures: 21 }, &CONFIG)
}

fn probed(breaker: &mut BreakerRow, answered: bool) -> bool {
    let epoch = breaker.epoch;
    hear(breaker, &BreakerSaid::Probed { epoch, answered }, &CONFIG)
}

fn order(breaker: &mut BreakerRow, state: Option<BreakerState>) {
    let (reason, by) = (None, "ann".to_owned());
    assert!(hear(breaker, &BreakerSaid::Order { state, reason, by }, &CONFIG));
}

/// Its time has come, and so many holds are there. Returns how many were let pass.
fn due(breaker: &mut BreakerRow, held: u32) -> u32 {
    let wanted = wanted(breaker, &CONFIG);
    begin(breaker, wanted);
    let holds = held.min(wanted.holds_max);
    passed(breaker, wanted, holds, &CONFIG);
    holds
}

fn is(breaker: &BreakerRow, phase: Phase, due_in_ms: Option<u64>) {
    assert_eq!((breaker.phase, breaker.due_in_ms), (phase, due_in_ms), "{breaker:?}");
}

#[test]
fn one_probe_goes_and_each_that_fails_makes_the_next_pause_longer() {
    let mut breaker = closed();
    assert!(failing(&mut breaker));
    is(&breaker, Phase::Paused, Some(5_000));
    for pause_ms in [10_000, 15_000, 15_000] {
        assert_eq!(due(&mut breaker, 20_000), 1);
        is(&breaker, Phase::Probing, Some(30_000));
        assert!(probed(&mut breaker, false));
        is(&breaker, Phase::Paused, Some(pause_ms));
    }
    assert_eq!(breaker.openings, 1);
}

#[test]
fn a_probe_that_is_lost_is_followed_by_another_one() {
    let mut breaker = closed();
    failing(&mut breaker);
    assert_eq!(due(&mut breaker, 2), 1);
    let lost = breaker.epoch;
    assert_eq!(due(&mut breaker, 1), 1);
    is(&breaker, Phase::Probing, Some(30_000));
    let late = |answered| BreakerSaid::Probed { epoch: lost, answered };
    assert!(!hear(&mut breaker, &late(false), &CONFIG), "another one is under way");
    assert!(hear(&mut breaker, &late(true), &CONFIG), "a late yes is a yes");
    is(&breaker, Phase::Recovering, Some(0));
}

#[test]
fn where_no_hold_is_there_the_next_one_that_comes_is_the_probe() {
    let mut breaker = closed();
    failing(&mut breaker);
    assert_eq!(due(&mut breaker, 0), 0);
    is(&breaker, Phase::Ready, None);
    assert_eq!(breaker.phase.state(), BreakerState::HalfOpen);
    hold_came(&mut breaker);
    is(&breaker, Phase::Ready, Some(0));
    assert_eq!(due(&mut breaker, 1), 1);
    is(&breaker, Phase::Probing, Some(30_000));
}

#[test]
fn the_rest_passes_at_a_rate_that_grows_and_the_breaker_closes_when_none_is_left() {
    let mut breaker = closed();
    failing(&mut breaker);
    due(&mut breaker, 50);
    assert!(probed(&mut breaker, true));
    let (mut held, mut ticks, mut first_second, mut rate) = (49, 0, 0, 0.0);
    while breaker.phase == Phase::Recovering {
        let passed = due(&mut breaker, held);
        held -= passed;
        ticks += 1;
        if ticks <= 10 {
            first_second += passed;
            rate = breaker.release_per_s;
        }
    }
    assert!((10..=20).contains(&first_second), "{first_second}");
    assert!((19.9..20.1).contains(&rate), "twice as many after a second: {rate}");
    assert!(held == 0 && ticks > 10, "{held} after {ticks}");
    is(&breaker, Phase::Closed, Some(100));
    due(&mut breaker, 0);
    is(&breaker, Phase::Closed, None);
}

#[test]
fn failures_while_it_recovers_open_it_again_and_old_news_do_nothing() {
    let mut breaker = closed();
    failing(&mut breaker);
    due(&mut breaker, 9);
    probed(&mut breaker, true);
    let old = BreakerSaid::Failing { epoch: 0, calls: 20, failures: 20 };
    assert!(!hear(&mut breaker, &old, &CONFIG));
    assert!(failing(&mut breaker));
    is(&breaker, Phase::Paused, Some(10_000));
    assert!(!failing(&mut breaker), "it is open already");
}

#[test]
fn a_hold_that_comes_to_a_closed_breaker_is_let_pass_soon() {
    let mut breaker = closed();
    hold_came(&mut breaker);
    is(&breaker, Phase::Closed, Some(STRAY_MS));
    assert_eq!(due(&mut breaker, 3), 3);
    is(&breaker, Phase::Closed, None);
}

#[test]
fn an_order_holds_whatever_calls_do_until_it_is_taken_back() {
    let mut breaker = closed();
    order(&mut breaker, Some(BreakerState::Open));
    is(&breaker, Phase::Paused, None);
    assert!(!probed(&mut breaker, true));
    hold_came(&mut breaker);
    assert_eq!(due(&mut breaker, 5), 0);
    order(&mut breaker, None);
    is(&breaker, Phase::Paused, Some(0));
    assert_eq!((due(&mut breaker, 5), breaker.ordered_by.as_deref()), (1, Some("ann")));
    order(&mut breaker, Some(BreakerState::Closed));
    assert!(!failing(&mut breaker));
    assert_eq!(due(&mut breaker, 50), 10, "at the highest rate");
    is(&breaker, Phase::Closed, Some(100));
}

#[test]
fn no_order_of_what_may_happen_leaves_holds_behind() {
    // Every sequence of six happenings: afterwards it is due, or ordered to be open, or has no hold.
    let happenings: [fn(&mut BreakerRow, &mut u32); 7] = [
        |breaker, _| {
            let _ = failing(breaker);
        },
        |breaker, _| {
            let _ = probed(breaker, true);
        },
        |breaker, _| {
            let _ = probed(breaker, false);
        },
        |breaker, held| {
            *held += 1;
            hold_came(breaker);
        },
        |breaker, held| {
            if breaker.due_in_ms.is_some() {
                *held -= due(breaker, *held);
            }
        },
        |breaker, _| order(breaker, None),
        |breaker, _| order(breaker, Some(BreakerState::Closed)),
    ];
    for number in 0..7_usize.pow(6) {
        let (mut breaker, mut held) = (closed(), 0);
        for place in 0..6 {
            happenings[number / 7_usize.pow(place) % 7](&mut breaker, &mut held);
            let waits = held > 0 && breaker.due_in_ms.is_none();
            assert!(!waits, "{number}, {place}: {held} holds and {breaker:?}");
        }
    }
}
