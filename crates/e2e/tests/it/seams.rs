//! Each role ends dead at each of its seams, under load, and is started again.

use test_kit::Role;

use crate::chance::{Chance, TellSeed, seed};
use crate::load::Load;
use crate::stage::{PATIENCE, Stage};
use crate::turn::nearly_alone;

const SEAMS: [(Role, &str); 13] = [
    (Role::Ingest, "ingest.before-commit"),
    (Role::Ingest, "ingest.after-commit"),
    (Role::Relay, "relay.before-send"),
    (Role::Relay, "relay.before-commit"),
    (Role::Relay, "relay.after-commit"),
    (Role::Relay, "relay.before-ack"),
    (Role::Workers, "workers.before-send"),
    (Role::Workers, "workers.before-offsets"),
    (Role::Workers, "workers.before-commit"),
    (Role::Workers, "workers.after-commit"),
    (Role::Orchestrator, "orchestrator.before-commit"),
    (Role::Orchestrator, "orchestrator.after-commit"),
    (Role::Orchestrator, "orchestrator.after-release"),
];
/// At one of its first passages.
const PASSAGES_MAX: u64 = 5;
const STOP_AT: &str = "MEANWHILE_STOP_AT";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_stop_at_a_seam_loses_or_splits_a_job() {
    let (_turn, seed) = (nearly_alone().await, seed());
    let (_tell, mut chance) = (TellSeed(seed), Chance::new(seed));
    let session_timeout =
        |builder: test_kit::TestSystemBuilder| builder.variable("MEANWHILE__WORKERS__SESSION_TIMEOUT_MS", "2000");
    let mut stage = Stage::start_with(session_timeout).await;
    let load = Load::start_brisk(&stage, seed, 200).await;
    for (role, seam) in SEAMS {
        let passage = 1 + chance.below(PASSAGES_MAX);
        let process = stage.system.role(role);
        process.process().set_env(STOP_AT, format!("{seam}:{passage}"));
        process.restart().unwrap();
        let status = process.process().wait_for_exit(PATIENCE).await.unwrap();
        assert!(!status.success(), "{seam}:{passage}: left with {status}");
        let log = process.process().log_tail();
        assert!(log.contains(seam), "{seam}:{passage}: ended elsewhere: {log}");
        process.process().set_env(STOP_AT, "");
        process.restart().unwrap();
        process.wait_until_ready().await.unwrap();
    }
    let jobs = load.end(&mut stage).await;
    let left = stage.finish().await;
    assert_eq!(left.tokens.ends().len(), jobs);
    eprintln!("{jobs} jobs, {} stops", SEAMS.len());
}
