//! A caller that asks for one job too often gets 429.

use crate::stage::{INPUT, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_too_often_for_a_job_is_told_when_to_ask_again_and_others_are_answered() {
    let stage = Stage::with(|config| (config.polls_per_s, config.polls_burst) = (1, 5)).await;
    let api = &stage.ingest.api;
    let (job, other) = (api.order(&[], INPUT).await.job(), api.order(&[], INPUT).await.job());
    let path = format!("/v1/jobs/{job}");
    let first = api.get(&path).await;
    assert_eq!(first.status, 200);
    // A 304 counts, a result that is not there yet counts, and a wait counts once.
    let mut seen = vec![];
    while seen.len() < 1_000 && !seen.contains(&429) {
        let tag = first.header("etag");
        let answer = match seen.len() % 3 {
            0 => api.get_with(&path, &[("if-none-match", tag)]).await,
            1 => api.get(&format!("{path}/result")).await,
            _ => api.get(&format!("{path}?wait=0")).await,
        };
        seen.push(answer.status);
        if answer.status == 429 {
            assert_eq!((answer.problem(), answer.header("retry-after")), ("quota-exceeded", "1"), "{}", answer.text);
            assert_eq!(
                (&answer.json["job"], &answer.json["violated-policies"][0]),
                (&job.clone().into(), &"polls".into())
            );
        }
    }
    assert!(seen.len() >= 5 && seen.ends_with(&[429]), "the first ones are answered, then not all: {seen:?}");
    assert_eq!(&seen[..3], [304, 404, 200]);
    assert_eq!(api.get(&format!("/v1/jobs/{other}")).await.status, 200, "another job is another matter");
    assert_eq!(api.get("/v1/jobs").await.status, 200);
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_limit_everything_is_answered() {
    let stage = Stage::with(|config| (config.polls_per_s, config.polls_burst) = (0, 1)).await;
    let job = stage.ingest.api.order(&[], INPUT).await.job();
    for _ in 0..50 {
        assert_eq!(stage.ingest.api.get(&format!("/v1/jobs/{job}")).await.status, 200);
    }
    stage.ingest.stop().await;
}
