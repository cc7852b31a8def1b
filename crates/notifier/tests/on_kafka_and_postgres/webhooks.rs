//! From events to a receiver.

use std::time::Duration;

use flow::event::{EventKind, JobStatus};
use outbound::signature::Secret;
use serde_json::json;
use store::webhooks::{self, Action, Request as Asked};
use test_kit::{Answer, Ground, Receiver, TEST_TRACE, eventually, sample_event, sample_job};
use uuid::Uuid;

use crate::stage::{
    API, PATIENCE, SECRET, answers, deliveries, ended, ids, register, register_as, start, start_with, until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_job_is_told_signed_and_recorded_to_whom_it_concerns() {
    let (ground, receiver, other) = (Ground::new().await, Receiver::start().await, Receiver::start().await);
    let endpoint = register(&ground, &receiver.url(), &["job.succeeded"]).await;
    register(&ground, &other.url(), &["job.failed", "step.*"]).await;
    register_as(&ground, "another", (&other.url(), &["*"])).await;
    let running = start(&ground);
    let job = sample_job();
    let mut event = ended(job);
    event.data = Some(json!({ "tracking": "42" }));
    ground.tell(&sample_event(job, EventKind::JobAccepted, JobStatus::Accepted, 0)).await;
    ground.tell(&event).await;
    until(&ground, endpoint.id, "delivered", 1).await;
    let requests = receiver.requests();
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    let body = request.json();
    assert_eq!((&body["type"], &body["data"]["job"]), (&json!("job.succeeded"), &json!(job.to_string())));
    assert_eq!(body["data"]["result"], json!({ "tracking": "42" }));
    assert_eq!(body["data"]["links"]["result"], format!("{API}/v1/jobs/{job}/result"));
    let (id, timestamp) = (request.header("webhook-id"), request.header("webhook-timestamp"));
    let signature = Secret::Hmac(&SECRET).sign(id, timestamp.parse().unwrap(), &request.body).unwrap();
    assert_eq!(request.header("webhook-signature"), signature);
    assert_eq!(request.header("content-type"), "application/json");
    let trace = request.header("traceparent");
    assert!(trace.contains(&TEST_TRACE.context.trace_id.to_string()), "{trace}");
    let delivery = deliveries(&ground, endpoint.id, "id").pop().unwrap().replace('-', "");
    assert_eq!(id, format!("msg_{delivery}"));
    assert_eq!(ground.sql("select attempt, status, error from notifier.attempts"), "1|200|");
    assert!(other.requests().is_empty(), "they want to hear of other things, or are another tenant's");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_was_dead_gets_what_it_missed_under_the_same_id_and_in_the_order_of_each_job() {
    let (ground, receiver) = (Ground::new().await, Receiver::start().await);
    answers(&receiver, 503);
    let endpoint = register(&ground, &receiver.url(), &["*"]).await;
    let running = start_with(&ground, |config| config.schedule_s = vec![0; 1_000]);
    let jobs = [sample_job(), sample_job(), sample_job()];
    for (kind, status) in [
        (EventKind::JobAccepted, JobStatus::Accepted),
        (EventKind::StepSucceeded, JobStatus::Running),
        (EventKind::JobSucceeded, JobStatus::Succeeded),
    ] {
        for job in jobs {
            ground.tell(&sample_event(job, kind, status, 0)).await;
        }
    }
    eventually(PATIENCE, "some attempts fail", async || (receiver.requests().len() >= 5).then_some(())).await;
    let before = receiver.requests().len();
    answers(&receiver, 204);
    until(&ground, endpoint.id, "delivered", 9).await;
    let requests = receiver.requests();
    let taken: Vec<_> = requests[before..].iter().map(test_kit::Request::json).collect();
    for job in jobs {
        let of_job = taken.iter().filter(|body| body["data"]["job"] == job.to_string());
        let mut kinds: Vec<_> = of_job.map(|body| body["type"].as_str().unwrap().to_owned()).collect();
        // An attempt that was under way as the answer changed may have been repeated.
        kinds.dedup();
        assert_eq!(kinds, ["job.accepted", "step.succeeded", "job.succeeded"], "{job}");
    }
    let mut all = ids(&requests);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 9, "a repeated attempt has the id of the first");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_dead_receiver_of_twenty_delays_no_other() {
    let (ground, dead) = (Ground::new().await, Receiver::start().await);
    dead.answer_with(|_| Answer::status(200).after(Duration::from_secs(3_600)));
    let silent = register(&ground, &dead.url(), &["*"]).await;
    let mut others = Vec::new();
    for _ in 0..19 {
        let receiver = Receiver::start().await;
        others.push((register(&ground, &receiver.url(), &["*"]).await, receiver));
    }
    // Less room than the dead one has deliveries.
    let running = start_with(&ground, |config| {
        (config.deliveries_max, config.timeout_ms) = (25, 3_600_000);
    });
    for _ in 0..40 {
        ground.tell(&ended(sample_job())).await;
    }
    for (endpoint, _) in &others {
        until(&ground, endpoint.id, "delivered", 40).await;
    }
    assert!(deliveries(&ground, silent.id, "status").iter().all(|status| status == "pending"));
    assert!(dead.requests().len() <= 10, "{}", dead.requests().len());
    drop(running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_says_gone_is_disabled_which_is_told_and_is_sent_all_once_it_is_enabled() {
    let (ground, receiver, watcher) = (Ground::new().await, Receiver::start().await, Receiver::start().await);
    answers(&receiver, 410);
    let endpoint = register(&ground, &receiver.url(), &["*"]).await;
    let watching = register(&ground, &watcher.url(), &["webhook.*"]).await;
    let running = start(&ground);
    ground.tell(&ended(sample_job())).await;
    until(&ground, watching.id, "delivered", 1).await;
    let told = watcher.requests()[0].json();
    assert_eq!(told["type"], "webhook.endpoint.disabled");
    assert_eq!((&told["data"]["endpoint"], &told["data"]["reason"]), (&json!(endpoint.id.to_string()), &json!("gone")));
    let state = webhooks::find(&endpoint.pool, "default", endpoint.id).await.unwrap().unwrap().state;
    assert_eq!(state.disabled_reason.as_deref(), Some("gone"));
    ground.tell(&ended(sample_job())).await;
    until(&ground, endpoint.id, "pending", 2).await;
    assert_eq!(receiver.requests().len(), 1);
    answers(&receiver, 200);
    webhooks::enable(&endpoint.pool, "default", endpoint.id).await.unwrap();
    until(&ground, endpoint.id, "delivered", 2).await;
    assert_eq!(deliveries(&ground, endpoint.id, "attempts"), ["2", "1"], "nothing was sent while it was disabled");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_fails_for_too_long_is_disabled() {
    let (ground, receiver) = (Ground::new().await, Receiver::start().await);
    answers(&receiver, 500);
    let endpoint = register(&ground, &receiver.url(), &["*"]).await;
    let running = start_with(&ground, |config| config.disable_after_h = 1);
    ground.tell(&ended(sample_job())).await;
    until(&ground, endpoint.id, "failed", 1).await;
    let state = || webhooks::find(&endpoint.pool, "default", endpoint.id);
    assert_eq!(state().await.unwrap().unwrap().state.disabled_at_ms, None);
    ground.sql("update notifier.endpoints set failing_since = now() - interval '61 minutes'");
    ground.tell(&ended(sample_job())).await;
    eventually(PATIENCE, "it is disabled", async || {
        (state().await.unwrap().unwrap().state.disabled_reason.as_deref() == Some("failing")).then_some(())
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_a_receiver_names_is_kept_for_all_of_its_deliveries() {
    let (ground, receiver) = (Ground::new().await, Receiver::start().await);
    receiver.answer_with(|_| Answer::status(429).header("retry-after", "3600"));
    let endpoint = register(&ground, &receiver.url(), &["*"]).await;
    let running = start(&ground);
    ground.tell(&ended(sample_job())).await;
    eventually(PATIENCE, "the pause is known", async || {
        let found = webhooks::find(&endpoint.pool, "default", endpoint.id).await.unwrap().unwrap();
        found.state.paused_until_ms.is_some().then_some(())
    })
    .await;
    ground.tell(&ended(sample_job())).await;
    until(&ground, endpoint.id, "pending", 2).await;
    let far = "select count(*) from notifier.deliveries where due_at > now() + interval '3000 seconds'";
    assert_eq!(ground.sql(far), "1", "the one that was answered so");
    assert_eq!(receiver.requests().len(), 1);
    // The pause ends.
    answers(&receiver, 200);
    ground.sql("update notifier.endpoints set paused_until = now(); update notifier.deliveries set due_at = now()");
    webhooks::tell(&endpoint.pool).await.unwrap();
    until(&ground, endpoint.id, "delivered", 2).await;
    let found = webhooks::find(&endpoint.pool, "default", endpoint.id).await.unwrap().unwrap();
    assert_eq!(found.state, webhooks::State::default(), "a success ends what was wrong");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_not_followed_and_an_address_of_a_private_network_is_not_called() {
    let (ground, receiver, elsewhere) = (Ground::new().await, Receiver::start().await, Receiver::start().await);
    let to = elsewhere.url();
    receiver.answer_with(move |_| Answer::status(307).header("location", &to));
    let redirected = register(&ground, &receiver.url(), &["*"]).await;
    let private = register(&ground, "http://10.0.0.1/", &["*"]).await;
    let running = start_with(&ground, |config| config.schedule_s = vec![]);
    ground.tell(&ended(sample_job())).await;
    until(&ground, redirected.id, "failed", 1).await;
    until(&ground, private.id, "failed", 1).await;
    assert!(elsewhere.requests().is_empty());
    let errors = "select error from notifier.attempts order by error";
    assert_eq!(ground.sql(errors).lines().collect::<Vec<_>>(), ["redirect", "refused"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_ask_for_is_done_once() {
    let (ground, receiver) = (Ground::new().await, Receiver::start().await);
    let endpoint = register(&ground, &receiver.url(), &["job.*"]).await;
    let (running, second) = (start_with(&ground, |config| config.schedule_s = vec![]), start(&ground));
    let ask = async |action| {
        let request = Asked { id: Uuid::now_v7(), endpoint: endpoint.id, action };
        assert!(webhooks::ask(&endpoint.pool, "default", request).await.unwrap());
        assert!(!webhooks::ask(&endpoint.pool, "another", request).await.unwrap());
        request.id
    };
    let ping = ask(Action::Ping).await;
    until(&ground, endpoint.id, "delivered", 1).await;
    assert_eq!(receiver.requests()[0].json()["type"], "webhook.ping");
    assert_eq!(deliveries(&ground, endpoint.id, "id"), [ping.to_string()]);
    second.stop().await;

    answers(&receiver, 500);
    for _ in 0..3 {
        ground.tell(&ended(sample_job())).await;
    }
    until(&ground, endpoint.id, "failed", 3).await;
    answers(&receiver, 200);
    let resent: Uuid = deliveries(&ground, endpoint.id, "id")[1].parse().unwrap();
    assert!(!webhooks::resend(&endpoint.pool, "another", Uuid::now_v7(), resent).await.unwrap());
    assert!(webhooks::resend(&endpoint.pool, "default", Uuid::now_v7(), resent).await.unwrap());
    until(&ground, endpoint.id, "delivered", 2).await;
    ask(Action::Recover { since_ms: 0 }).await;
    until(&ground, endpoint.id, "delivered", 4).await;
    assert_eq!(deliveries(&ground, endpoint.id, "attempts"), ["1", "2", "2", "2"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_secrets_sign_until_the_overlap_of_a_rotation_ends() {
    let (ground, receiver) = (Ground::new().await, Receiver::start().await);
    let endpoint = register(&ground, &receiver.url(), &["*"]).await;
    let running = start(&ground);
    let rotate = |secret: u8, overlap_ms| {
        let (pool, id) = (endpoint.pool.clone(), endpoint.id);
        async move { webhooks::rotate(&pool, "default", (id, None), &[secret; 32], overlap_ms).await.unwrap() }
    };
    rotate(8, 3_600_000).await;
    ground.tell(&ended(sample_job())).await;
    until(&ground, endpoint.id, "delivered", 1).await;
    rotate(9, 0).await;
    ground.tell(&ended(sample_job())).await;
    until(&ground, endpoint.id, "delivered", 2).await;
    let signed: Vec<Vec<u8>> = receiver
        .requests()
        .iter()
        .map(|request| {
            let (id, at) = (request.header("webhook-id"), request.header("webhook-timestamp").parse().unwrap());
            let signatures: Vec<&str> = request.header("webhook-signature").split(' ').collect();
            let by = |byte: &u8| {
                signatures.contains(&Secret::Hmac(&[*byte; 32]).sign(id, at, &request.body).unwrap().as_str())
            };
            let found: Vec<u8> = (7..=9).filter(by).collect();
            assert_eq!(found.len(), signatures.len());
            found
        })
        .collect();
    assert_eq!(signed, [vec![7, 8], vec![9]]);
    running.stop().await;
}
