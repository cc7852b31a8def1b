//! `meanwhile dev` and the real kcat: everything in one process, nothing else installed.

use flow::id::JobId;
use serde_json::{Value, json};
use shop::{PerService, Shop};
use test_kit::{Launch, Port, Process, eventually, http_client, kcat, repository};
use tokio_util::sync::CancellationToken;

use crate::client::{order, send};
use crate::stage::PATIENCE;
use crate::turn::beside_others;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kcat_starts_a_job_in_dev_mode_and_bad_commands_become_dead_letters() {
    let _turn = beside_others();
    let shutdown = CancellationToken::new();
    let shop = Shop::start(PerService::any_port(), shutdown.clone()).await.unwrap();
    let (urls, _open) = (shop.urls(), shutdown.drop_guard());
    let ports = [Port::take().unwrap(), Port::take().unwrap(), Port::take().unwrap()];
    let [listen, kafka, registry] = ports.each_ref().map(|port| format!("127.0.0.1:{}", port.number()));
    let launch = Launch::new("dev", test_kit::binary().await.unwrap()).arg("dev").arg(repository().join("flows"));
    let launch = launch.args(["--listen", &listen, "--kafka-listen", &kafka, "--registry-listen", &registry]);
    let launch = launch.env("INVENTORY_URL", urls.inventory).env("PAYMENT_URL", urls.payment);
    let mut dev = Process::start(launch.env("SHIPPING_URL", urls.shipping)).unwrap();
    let (client, api) = (http_client(), format!("http://{listen}"));
    let ready = async || client.get(format!("{api}/readyz")).send().await.is_ok_and(|answer| answer.status() == 200);
    dev.wait_until(PATIENCE, "/readyz says ready", ready).await.unwrap();

    let valid = json!({ "flow": "order", "input": order("c-1", json!({})) }).to_string();
    let unknown = json!({ "flow": "ordr", "input": {} }).to_string();
    let lines = format!("{valid}\n{{\"flow\": \n{unknown}\n");
    kcat(&["-P", "-b", &kafka, "-t", "meanwhile.commands", "-k", "customer-1"], lines.as_bytes()).unwrap();
    let read = async |topic: &str, format: &str| {
        let seen = kcat(&["-C", "-b", &kafka, "-t", topic, "-o", "beginning", "-e", "-q", "-f", format], b"").unwrap();
        String::from_utf8_lossy(&seen).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let dead = eventually(PATIENCE, "two dead letters", async || {
        let dead = read("meanwhile.dead-letters", "%s %h\n").await;
        (dead.len() == 2).then_some(dead)
    })
    .await;
    assert!(dead.iter().any(|line| line.starts_with("{\"flow\": ") && line.contains("meanwhile-failure-reason")));
    assert!(dead.iter().any(|line| line.contains("ordr") && line.contains("`order`")), "{dead:?}");
    let keys = eventually(PATIENCE, "an event", async || {
        let keys = read("meanwhile.events", "%k\n").await;
        (!keys.is_empty()).then_some(keys)
    })
    .await;
    let job: JobId = keys[0].parse().unwrap();
    let status: Value = eventually(PATIENCE, "the job succeeds", async || {
        let seen = send(client.get(format!("{api}/v1/jobs/{job}"))).await;
        (seen.body["status"] == "succeeded").then_some(seen.body)
    })
    .await;
    assert_eq!(status["result"]["tracking"], "TRACK-000001");
    let left = dev.terminate(PATIENCE).await.unwrap();
    assert!(left.success(), "dev mode left with {left}: {}", dev.log_tail());
}
