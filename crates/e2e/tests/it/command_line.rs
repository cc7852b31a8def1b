//! The command line against a running system, as an operator and a caller use it.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use bus::Record;
use flow::event::{EventKind, JobStatus};
use flow::id::JobId;
use serde_json::{Value, json};
use test_kit::{Ground, eventually};

use crate::client::small_order;
use crate::stage::{PATIENCE, Stage};
use crate::turn::beside_others;

/// Runs the binary to its end: exit code, standard output, standard error.
pub(crate) async fn meanwhile(
    arguments: &[&str],
    variables: &[(&str, &str)],
    input: &str,
) -> (Option<i32>, String, String) {
    let mut command = Command::new(test_kit::binary().await.unwrap());
    command.args(arguments).envs(variables.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that does not read it may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let Output { status, stdout, stderr } = tokio::task::block_in_place(|| child.wait_with_output().unwrap());
    let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (status.code(), stdout, stderr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_submitted_followed_and_shown() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let api = stage.system.api();
    let url = [("MEANWHILE_URL", api.as_str())];

    let input = small_order("c-1", json!({})).to_string();
    let (code, told, _) = meanwhile(&["submit", "saga", "--input", "-", "--key", "a \"key\""], &url, &input).await;
    assert_eq!(code, Some(0), "{told}");
    let job: JobId = told.trim().parse().unwrap();
    stage.system.note_accepted([job]);
    let (_, again, _) = meanwhile(&["submit", "saga", "--input", &input, "--key", "a \"key\""], &url, "").await;
    assert_eq!(again.trim(), job.to_string(), "the same key is the same job");

    let shown = [&job.to_string(), "--follow"];
    let (code, told, _) = meanwhile(&["jobs", "show", shown[0], shown[1]], &url, "").await;
    assert_eq!(code, Some(0), "{told}");
    for line in [format!("saga {job}"), "o            accepted".to_owned(), "+ reserve    done".to_owned()] {
        assert!(told.contains(&line), "not told: {line}\n{told}");
    }
    assert!(told.contains("= succeeded"), "{told}");
    let (_, told, _) = meanwhile(&["jobs", "show", &job.to_string(), "--json"], &url, "").await;
    let status: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&status["id"], &status["status"]), (&json!(job.to_string()), &json!("succeeded")));

    // A job that fails is told by the exit code, to a caller who submits and follows in one.
    let input = small_order("c-1", json!({ "payment": "declined" })).to_string();
    let (code, told, _) = meanwhile(&["submit", "saga", "--input", &input, "--follow"], &url, "").await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("< reserve    undone") && told.contains("= failed"), "{told}");
    let job = told.lines().next().unwrap().rsplit(' ').next().unwrap();
    stage.system.note_accepted([job.parse().unwrap()]);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_of_a_caller_are_shown_with_their_remedy() {
    let _turn = beside_others().await;
    let stage = Stage::start().await;
    let api = stage.system.api();
    let url = [("MEANWHILE_URL", api.as_str())];
    let nobody = [("MEANWHILE_URL", "http://127.0.0.1:1")];
    let unknown = "0190a5c1-0000-7000-8000-000000000000";
    for (arguments, variables, expected) in [
        (&["submit", "sagga"][..], url, "`saga`"),
        (&["submit", "saga", "--input", "{}"], url, "customer_id"),
        (&["submit", "saga", "--input", "{"], url, "line 1"),
        (&["submit", "saga", "--input", "@/nowhere.json"], url, "reading /nowhere.json"),
        (&["jobs", "show", unknown], url, "404 Not Found"),
        (&["jobs", "retry", unknown], url, "404 Not Found"),
        (&["jobs", "show", unknown], nobody, "start it with `meanwhile dev`, or name another with --url"),
    ] {
        let (code, _, told) = meanwhile(arguments, &variables, "").await;
        assert_eq!(code, Some(1), "{arguments:?}: {told}");
        assert!(told.starts_with("error: ") && told.contains(expected), "{arguments:?}: {told}");
    }
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_job_is_retried_and_followed_to_its_end() {
    let _turn = beside_others().await;
    let mut stage = Stage::start().await;
    let api = stage.system.api();
    let url = [("MEANWHILE_URL", api.as_str())];
    let input = small_order("c-1", json!({ "inventory": "undo_error", "payment": "declined" }));
    let job = stage.submit("patient", &input).await;
    let parked = async || {
        let (_, told, _) = meanwhile(&["jobs", "show", &job.to_string()], &url, "").await;
        told.contains("= needs_attention").then_some(())
    };
    eventually(PATIENCE, "the job is shown as parked", parked).await;
    stage.shop.mend(true);
    let (code, told, _) = meanwhile(&["jobs", "retry", &job.to_string(), "--follow"], &url, "").await;
    assert_eq!(code, Some(1), "it ends as failed, undone: {told}");
    assert!(told.starts_with(&job.to_string()) && told.contains("sent on by an operator"), "{told}");
    assert_eq!(stage.end_of(job).await.status, JobStatus::Failed);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrate_tells_of_a_registry_that_does_not_know_the_records_on_kafka() {
    let ground = Ground::new().await;
    let variables = [
        ("DATABASE_URL", ground.database_url.as_str()),
        ("KAFKA_BROKERS", &ground.bus.brokers),
        ("SCHEMA_REGISTRY_URL", &ground.bus.registry_url),
        ("MEANWHILE__TOPICS__PREFIX", ground.topics.prefix()),
    ];
    let event = test_kit::sample_event(test_kit::sample_job(), EventKind::JobAccepted, JobStatus::Accepted, 0);
    ground.tell(&event).await;
    let (code, told, complained) = meanwhile(&["migrate"], &variables, "").await;
    assert_eq!(code, Some(0), "{told}{complained}");
    assert!(!told.contains("WARNING"), "{told}");
    // Of a schema that the registry has no more, and of an id that is another schema's now.
    for id in [999_999, ground.writers.slip] {
        let value = Some([&[0][..], &id.to_be_bytes(), b"rest"].concat());
        ground.send(&Record { topic: ground.topics.events(), value, ..Record::default() }).await;
    }
    let (code, told, _) = meanwhile(&["migrate"], &variables, "").await;
    assert_eq!(code, Some(0), "{told}");
    for id in [999_999, ground.writers.slip] {
        assert!(told.contains(&format!(" {id} ({})", ground.topics.events())), "{told}");
    }
    assert!(!told.contains(&format!(" {} (", ground.writers.job_event)), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_are_linted_and_applied() {
    let ground = Ground::new().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let variables = [
        ("DATABASE_URL", ground.database_url.as_str()),
        ("KAFKA_BROKERS", &ground.bus.brokers),
        ("SCHEMA_REGISTRY_URL", &ground.bus.registry_url),
        ("MEANWHILE__TOPICS__PREFIX", ground.topics.prefix()),
    ];
    let write = |steps: &str| {
        fs::write(folder.path().join("order.yaml"), format!("flow: order\nsteps: [{{ id: one, {steps} }}]\n")).unwrap();
    };

    write("nativ: one");
    for command in ["lint", "apply"] {
        let (code, told, complained) = meanwhile(&["flows", command, path], &variables, "").await;
        let all = format!("{told}{complained}");
        assert_eq!(code, Some(1), "{command}: {all}");
        assert!(all.contains(&format!("{path}/order.yaml:2:")) && all.contains("did you mean `native`?"), "{all}");
    }
    assert_eq!(ground.sql("select count(*) from ingest.flows"), "0");

    write("native: one, queue: slow");
    let (code, told, _) = meanwhile(&["flows", "lint", path], &[], "").await;
    assert_eq!(code, Some(0), "linting needs no server: {told}");
    assert!(told.starts_with("ok: order (") && told.ends_with("), 1 steps\n"), "{told}");

    let (code, told, complained) = meanwhile(&["flows", "apply", path], &variables, "").await;
    assert_eq!(code, Some(0), "{complained}");
    assert!(told.contains(&format!("created  {}\n", ground.topics.steps("slow"))), "{told}");
    assert!(told.contains("applied  order ") && told.contains("(revision "), "{told}");
    assert_eq!(ground.outbox(&ground.topics.flows()).len(), 1);

    let (code, told, _) = meanwhile(&["flows", "apply", path], &variables, "").await;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.starts_with("as it was  order "), "{told}");
    assert_eq!(ground.outbox(&ground.topics.flows()).len(), 1, "nothing is sent for a flow that has not changed");
}
