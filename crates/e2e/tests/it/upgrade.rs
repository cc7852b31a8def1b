//! An earlier build of the program beside this one, forth and back: each reads what the other writes.

use std::path::PathBuf;
use std::time::Duration;

use test_kit::Role;

use crate::chance::{TellSeed, seed};
use crate::load::{Load, pass};
use crate::stage::{PATIENCE, Stage};
use crate::turn::nearly_alone;

const IN_FLIGHT: usize = 60;
/// The time for which a mixture works.
const FOR_A_WHILE: Duration = Duration::from_secs(8);
/// In the order of an upgrade.
const IN_ORDER: [Role; 5] = [Role::Orchestrator, Role::Workers, Role::Notifier, Role::Ingest, Role::Relay];

/// Asks the processes from `first` on, in the order of their start, to end: `count` of them.
async fn end(stage: &mut Stage, first: usize, count: usize) {
    for mut process in stage.system.roles().drain(first..first + count).collect::<Vec<_>>() {
        let status = process.terminate(PATIENCE).await.unwrap();
        assert!(status.success(), "{} left with {status}", process.role().as_str());
    }
}

async fn wait_until_ready(stage: &mut Stage) {
    for process in stage.system.roles().iter_mut().filter(|process| process.role() != Role::Relay) {
        process.wait_until_ready().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it needs the program of an earlier revision: scripts/tools/test-upgrade"]
async fn two_versions_of_each_role_work_beside_each_other_forth_and_back() {
    let previous: PathBuf = std::env::var_os("MEANWHILE_PREVIOUS_BIN").expect("MEANWHILE_PREVIOUS_BIN").into();
    let (_turn, seed) = (nearly_alone().await, seed());
    let _tell = TellSeed(seed);
    let mut stage = Stage::start().await;
    let load = Load::start_brisk(&stage, seed, IN_FLIGHT).await;
    // The first ingest stays: the callers know its address.
    for role in IN_ORDER {
        stage.add_program(previous.clone(), role);
    }
    wait_until_ready(&mut stage).await;
    pass(FOR_A_WHILE).await;
    // Back: the earlier version alone takes over what the present one has begun.
    let present = stage.system.roles().iter().take(5).filter(|process| process.role() != Role::Ingest).count();
    let ingest = stage.system.roles().iter().position(|process| process.role() == Role::Ingest).unwrap();
    stage.system.roles().swap(ingest, 0);
    end(&mut stage, 1, present).await;
    pass(FOR_A_WHILE).await;
    // Forth again, in the order of an upgrade, one role after the other.
    for role in IN_ORDER {
        stage.add(role).await;
    }
    wait_until_ready(&mut stage).await;
    end(&mut stage, 1, IN_ORDER.len()).await;
    pass(FOR_A_WHILE).await;
    let jobs = load.end(&mut stage).await;
    let left = stage.finish().await;
    assert_eq!((left.tokens.ends().len(), left.tokens.dead_letters), (jobs, 0));
    assert!(jobs > IN_FLIGHT, "the load went on");
    eprintln!("{jobs} jobs, by two versions");
}
