//! Seeded faults of every kind, one or two at once, between and in all parts, under mixed load.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use client::BreakerOrder;
use flow::event::{EventKind, JobEvent};
use test_kit::{Line, LineState, MeanwhileProcess, Role, Server, SlowDisk};

use crate::chance::{Chance, TellSeed, seed};
use crate::load::{Load, pass};
use crate::operators::{Deeds, set_breaker, take_back};
use crate::stage::{Left, PATIENCE, Stage};
use crate::turn::nearly_alone;

/// The load keeps so many jobs in flight.
const IN_FLIGHT: usize = 700;
/// In flight whenever faults begin: the system works again after those before.
const IN_FLIGHT_MIN: usize = 500;
/// Faults last at least so long, ms, and at most so much longer.
const LASTS_MS: (u64, u64) = (500, 7_500);
/// Longer than the time-outs of sessions and transactions that these tests set.
const PAUSE: Duration = Duration::from_secs(6);
/// A service's silence, shorter than its callers' time-outs: an undo that gives up would need a person.
const SERVICE_SILENCE: Duration = Duration::from_secs(2);
/// A clock jumps by so many seconds at most: less than any deadline of the load.
const CLOCK_JUMP_MAX_S: u64 = 1_200;
/// A process stays if its clock is set back by so many seconds at most (`process::SET_BACK_MAX`).
const SET_BACK_MAX_S: i64 = 30;
/// So long the long run goes on, unless `FAULT_MINUTES` says otherwise.
const MINUTES: u64 = 10;

/// A disturbance.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// `kill -9` of a process of ours, by its place.
    Kill(usize),
    /// A process of ours stands still and wakes as a zombie.
    Pause(usize),
    /// `kill -9` of a server.
    KillServer(Server),
    /// A server stands still.
    PauseServer(Server),
    /// A server can write nothing more.
    FillDisk(Server),
    /// Each `fsync` of a server takes so long.
    SlowDisk(Server, Duration),
    /// The wall clock of a process of ours, by its place, jumps by so many seconds, and back.
    Clock(usize, i64),
    /// The network between a role and a server.
    Line(Role, Server, LineState),
    /// The network between workers and a service.
    Service(usize, LineState),
    /// An operator opens the breaker of a service.
    Breaker(usize),
}

impl Fault {
    fn draw(chance: &mut Chance, processes: usize) -> Self {
        let place = chance.below(processes as u64) as usize;
        let server = Server::ALL[chance.below(3) as usize];
        match chance.below(16) {
            0 | 1 => Self::Kill(place),
            2 | 3 => Self::Pause(place),
            4 => Self::KillServer(server),
            5 => Self::PauseServer(server),
            6 => Self::FillDisk(Self::draw_writer(chance)),
            12 => Self::SlowDisk(Self::draw_writer(chance), Duration::from_millis(50) + chance.ms_below(1_000)),
            13 | 14 => {
                let by = 1 + chance.below(CLOCK_JUMP_MAX_S) as i64;
                Self::Clock(place, if chance.below(2) == 0 { by } else { -by })
            }
            15 => Self::Breaker(chance.below(3) as usize),
            7..10 => {
                let role = Role::ALL[chance.below(5) as usize];
                let delay = Duration::from_millis(20) + chance.ms_below(500);
                let states = [LineState::Cut, LineState::Silent, LineState::Breaking(60), LineState::Delayed(delay)];
                Self::Line(role, server, states[chance.below(4) as usize])
            }
            _ => {
                let states =
                    [LineState::Silent, LineState::Breaking(50), LineState::Delayed(Duration::from_millis(300))];
                Self::Service(chance.below(3) as usize, states[chance.below(3) as usize])
            }
        }
    }

    fn draw_writer(chance: &mut Chance) -> Server {
        if chance.below(2) == 0 { Server::Kafka } else { Server::Postgres }
    }

    /// Whether both disturb one process: the second could undo the first.
    fn meets(self, other: Self) -> bool {
        let target = |fault| match fault {
            Self::Kill(place) | Self::Pause(place) | Self::Clock(place, _) => Some((Some(place), None)),
            Self::KillServer(server)
            | Self::PauseServer(server)
            | Self::FillDisk(server)
            | Self::SlowDisk(server, _) => Some((None, Some(server))),
            Self::Line(..) | Self::Service(..) | Self::Breaker(_) => None,
        };
        self == other || target(self).is_some_and(|target_of_self| Some(target_of_self) == target(other))
    }

    /// Returns what has to be kept until it is over.
    async fn strike(self, stage: &mut Stage, services: &[Line]) -> Option<SlowDisk> {
        let system = &mut stage.system;
        match self {
            Self::Kill(place) => system.roles()[place].process().kill9(),
            Self::Pause(place) => system.roles()[place].process().pause(),
            Self::KillServer(Server::Kafka) => system.kafka().kill9(),
            Self::KillServer(Server::Postgres) => system.postgres().kill9(),
            Self::KillServer(Server::Registry) => system.registry().kill9(),
            Self::PauseServer(Server::Kafka) => system.kafka().pause(),
            Self::PauseServer(Server::Postgres) => system.postgres().pause(),
            Self::PauseServer(Server::Registry) => system.registry().pause(),
            Self::FillDisk(Server::Kafka) => system.kafka().fill_disk().unwrap(),
            Self::FillDisk(_) => system.postgres().fill_disk().unwrap(),
            Self::SlowDisk(Server::Kafka, fsync) => return Some(system.kafka().slow_disk(fsync).await.unwrap()),
            Self::SlowDisk(_, fsync) => return Some(system.postgres().slow_disk(fsync).await.unwrap()),
            Self::Clock(place, seconds) => set_clock(&mut system.roles()[place], seconds, seconds).await,
            Self::Line(role, server, state) => system.line(role, server).set(state),
            Self::Service(service, state) => services[service].set(state),
            Self::Breaker(service) => {
                set_breaker(&system.client(), &downstream(&services[service]), BreakerOrder::Open).await;
            }
        }
        None
    }

    /// The least time that it lasts, and the most.
    fn lasts(self) -> (Duration, Duration) {
        let (least, more) = (Duration::from_millis(LASTS_MS.0), Duration::from_millis(LASTS_MS.1));
        match self {
            Self::Pause(_) => (PAUSE, PAUSE + more),
            Self::Service(_, LineState::Silent) => (least, SERVICE_SILENCE),
            _ => (least, least + more),
        }
    }

    /// Ends it, as what runs the parts in production does: a part that is dead is started again.
    async fn heal(self, stage: &mut Stage, services: &[Line]) {
        let system = &mut stage.system;
        match self {
            Self::Kill(place) => system.roles()[place].restart().unwrap(),
            Self::Pause(place) => system.roles()[place].process().resume(),
            Self::KillServer(Server::Kafka) | Self::FillDisk(Server::Kafka) => system.kafka().restart().await.unwrap(),
            Self::KillServer(Server::Postgres) | Self::FillDisk(_) => system.postgres().restart().await.unwrap(),
            Self::KillServer(Server::Registry) => system.registry().restart().await.unwrap(),
            Self::PauseServer(Server::Kafka) => system.kafka().resume(),
            Self::PauseServer(Server::Postgres) => system.postgres().resume(),
            Self::PauseServer(Server::Registry) => system.registry().resume(),
            // It ends with what was kept.
            Self::SlowDisk(..) => {}
            Self::Clock(place, seconds) => set_clock(&mut system.roles()[place], 0, -seconds).await,
            Self::Line(role, server, _) => system.line(role, server).set(LineState::Whole),
            Self::Service(service, _) => services[service].set(LineState::Whole),
            // Once the API is there again.
            Self::Breaker(_) => {}
        }
    }
}

/// The name of a service's breaker.
fn downstream(service: &Line) -> String {
    format!("127.0.0.1:{}", service.port())
}

/// Moves a role's clock to this many seconds ahead, a change by `by`. A process whose clock is set back by more than
/// half a minute leaves: Kafka's client would stand still for as long. It is started again, as what runs it does.
async fn set_clock(role: &mut MeanwhileProcess, to: i64, by: i64) {
    role.clock().set(to).unwrap();
    if by < -SET_BACK_MAX_S {
        let left = role.process().wait_for_exit(PATIENCE).await.unwrap();
        assert!(!left.success(), "it says that something was wrong");
        assert!(role.process().log_tail().contains("the wall clock was set back by"), "{}", role.process().log_tail());
        role.restart().unwrap();
    }
}

/// One fault, or two at once, in every second round.
fn draw(chance: &mut Chance, processes: usize) -> Vec<Fault> {
    let mut faults = vec![Fault::draw(chance, processes)];
    if chance.below(2) == 0 {
        let second = Fault::draw(chance, processes);
        if !second.meets(faults[0]) {
            faults.push(second);
        }
    }
    faults
}

/// Holds that the load had jobs of every kind, and that nobody paid twice.
fn assert_every_kind(left: &Left, deeds: &Deeds) {
    let told = |flow: &str, kind: EventKind, what: &dyn Fn(&JobEvent) -> bool| {
        left.tokens.events.iter().filter(|event| event.flow == flow && event.kind == kind && what(event)).count()
    };
    let any = |_: &JobEvent| true;
    let late = |event: &JobEvent| event.data.as_ref().is_some_and(|data| data["code"] == "deadline-exceeded");
    let ruled = |event: &JobEvent| event.data.as_ref().is_some_and(|data| data.get("outcome").is_some());
    let of = |step: &'static str| move |event: &JobEvent| event.step.as_deref() == Some(step);
    let fallen = |event: &JobEvent| event.data.is_some();
    for (what, count) in [
        ("native steps", told("native", EventKind::StepSucceeded, &of("reserve"))),
        ("native steps undone", told("native", EventKind::StepCompensated, &of("reserve"))),
        ("fallbacks", told("native", EventKind::StepSkipped, &fallen)),
        ("deadlines of steps", told("native", EventKind::StepFailed, &late)),
        ("verdicts taken", told("blind", EventKind::JobResumed, &ruled)),
        ("parked charges", told("blind", EventKind::JobParked, &any)),
        ("verdicts that it was done", deeds.verdicts_done.load(Ordering::Relaxed)),
        ("verdicts that it was not done", deeds.verdicts_not_done.load(Ordering::Relaxed)),
        ("redriven commands", deeds.redrives.load(Ordering::Relaxed)),
    ] {
        eprintln!("{count:>6} {what}");
        assert!(count > 0, "the load had no {what}");
    }
    assert_eq!(told("native", EventKind::StepSucceeded, &of("wrap")), 0, "a fallback leads past it");
    let mut paid = BTreeMap::<&str, u32>::new();
    let states = left.shop.states();
    states.payment.entries.iter().for_each(|entry| *paid.entry(&entry.order).or_default() += 1);
    let blind = left.tokens.events.iter().filter(|event| event.flow == "blind" || event.flow == "cash");
    let jobs: BTreeSet<String> = blind.map(|event| event.job.to_string()).collect();
    let twice: Vec<_> = paid.iter().filter(|(job, times)| **times > 1 && jobs.contains(**job)).collect();
    assert!(twice.is_empty(), "charged more than once: {twice:?}");
}

#[ignore = "minutes: scripts/tools/test-faults"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_of_many_minutes_loses_or_splits_a_job() {
    let minutes = std::env::var("FAULT_MINUTES").map_or(MINUTES, |minutes| minutes.parse().unwrap());
    let (_turn, seed) = (nearly_alone().await, seed());
    let (_tell, mut chance) = (TellSeed(seed), Chance::new(seed));
    let (mut stage, services) = Stage::start_with_lines(|builder| {
        let builder = builder.callbacks().flows(test_kit::repository().join("crates/e2e/later"));
        let builder = builder.program(Role::Workers, env!("CARGO_BIN_EXE_native_workers"));
        let builder = builder.clocks().role(Role::Workers, 2).role(Role::Relay, 2);
        let builder = builder.variable("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", "4000");
        let builder = builder.variable("MEANWHILE__WORKERS__TRANSACTION_TIMEOUT_MS", "4000");
        builder.variable("MEANWHILE__RELAY__TRANSACTION_TIMEOUT_MS", "4000")
    })
    .await;
    let load = Load::start_whole(&stage, seed, IN_FLIGHT).await;
    let (begin, mut count) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_secs(60 * minutes) {
        load.until_in_flight(IN_FLIGHT_MIN).await;
        let faults = draw(&mut chance, stage.system.roles().len());
        eprintln!("{:>4} s: {faults:?}", begin.elapsed().as_secs());
        let mut slow_disks = vec![];
        for fault in &faults {
            slow_disks.extend(fault.strike(&mut stage, &services).await);
            let (least, most) = fault.lasts();
            pass(least + chance.ms_below(1 + (most - least).as_millis() as u64)).await;
        }
        slow_disks.into_iter().for_each(SlowDisk::end);
        for fault in &faults {
            fault.heal(&mut stage, &services).await;
        }
        for fault in &faults {
            if let Fault::Breaker(service) = fault {
                take_back(&stage.system.client(), &downstream(&services[*service])).await;
            }
        }
        count += faults.len();
        pass(chance.ms_below(2_000)).await;
    }
    load.until_in_flight(IN_FLIGHT_MIN).await;
    // An order that was on its way when its sender gave it up.
    for service in &services {
        take_back(&stage.system.client(), &downstream(service)).await;
    }
    let (jobs, deeds) = load.end_whole(&mut stage).await;
    let left = stage.finish().await;
    assert_eq!(left.tokens.ends().len(), jobs);
    assert_eq!(left.tokens.dead_letters, left.tokens.dead_commands);
    assert_every_kind(&left, &deeds);
    eprintln!("seed {seed}: {jobs} jobs, {count} faults, {} s", begin.elapsed().as_secs());
}
