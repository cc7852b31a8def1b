//! A relay in a process of its own, to be killed: this test binary, started again with one test to run.

use events::topic::Topics;
use relay::config::Config;
use relay::seam::Seams;
use service_kit::CancellationToken;
use test_kit::{Launch, Process};

use crate::stage::Stage;

const DATABASE: &str = "RELAY_CHILD_DATABASE";
const BROKERS: &str = "RELAY_CHILD_BROKERS";
const PREFIX: &str = "RELAY_CHILD_PREFIX";

/// Starts a relay for the stage in another process.
pub(crate) fn start(stage: &Stage) -> Process {
    let launch = Launch::new("relay", std::env::current_exe().unwrap())
        .args(["child::a_relay_as_a_process", "--exact", "--ignored", "--nocapture"])
        .env(DATABASE, stage.database_url.as_str())
        .env(BROKERS, stage.kafka.brokers.as_str())
        .env(PREFIX, stage.topics.prefix());
    Process::start(launch).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by other tests, in a process of its own"]
async fn a_relay_as_a_process() {
    let variable = |name: &str| std::env::var(name).ok();
    let (Some(database_url), Some(brokers)) = (variable(DATABASE), variable(BROKERS)) else { return };
    let settings = relay::Settings {
        config: Config::default(),
        database_url,
        bus: bus::Settings::new(brokers, "http://127.0.0.1:1"),
        topics: Topics::new(variable(PREFIX).unwrap()),
        seams: Seams::default(),
    };
    relay::run(settings, process::Process::system("relay"), CancellationToken::new()).await.unwrap();
}
