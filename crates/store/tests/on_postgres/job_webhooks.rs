use sqlx::Executor;
use store::Role;
use store::acceptances::{Accepted, NewAcceptance, accept_batch};
use store::webhooks::{JobWebhook, forget_of_jobs, of_job};
use uuid::Uuid;

use crate::database::{Database, acceptance, keyed};

const DAY_MS: i64 = 86_400_000;

fn webhook(path: &str, secret: Option<&[u8]>) -> Option<JobWebhook> {
    Some(JobWebhook {
        receiver: Uuid::from_u128(7),
        url: format!("https://example.com/{path}"),
        events: vec!["job.failed".to_owned(), "step.*".to_owned()],
        secret: secret.map(<[u8]>::to_vec),
    })
}

#[tokio::test]
async fn a_webhook_is_stored_with_its_job_and_with_no_other_request_of_the_same_key() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    let secret: &[u8] = b"a key of twenty-four byte";
    let batch = [
        NewAcceptance { webhook: webhook("first", Some(secret)), ..keyed("a", "key", "asked") },
        acceptance("b"),
        NewAcceptance { webhook: webhook("again", None), ..keyed("c", "key", "asked") },
        NewAcceptance { webhook: webhook("plain", None), ..acceptance("d") },
    ];
    let outcomes = accept_batch(&pool, &batch).await.unwrap();
    assert!(matches!(outcomes[2], Accepted::Replayed { same_fingerprint: true, .. }), "{outcomes:?}");
    // Sent again, since its outcome was unknown.
    accept_batch(&pool, &batch).await.unwrap();
    for (request, stored) in batch.iter().zip([true, false, false, true]) {
        let found = of_job(&pool, request.acceptance.job).await.unwrap();
        assert_eq!(found, request.webhook.clone().filter(|_| stored));
    }
    let shown = format!("{:?}", batch[0]);
    assert!(!shown.contains("97, 32, 107") && !shown.contains("a key of"), "{shown}");
}

#[tokio::test]
async fn a_webhook_goes_with_its_job() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Ingest);
    let kept = NewAcceptance { webhook: webhook("kept", None), ..acceptance("kept") };
    let gone = NewAcceptance { webhook: webhook("gone", None), ..acceptance("gone") };
    accept_batch(&pool, &[kept.clone(), gone.clone()]).await.unwrap();
    let deleting = format!("delete from ingest.acceptances where job = '{}'", gone.acceptance.job);
    database.superuser().await.execute(sqlx::AssertSqlSafe(deleting)).await.unwrap();
    forget_of_jobs(&pool, DAY_MS).await.unwrap();
    assert_eq!(database.count("ingest.job_webhooks").await, 2, "it was accepted today");
    forget_of_jobs(&pool, -DAY_MS).await.unwrap();
    assert_eq!(of_job(&pool, gone.acceptance.job).await.unwrap(), None);
    assert_eq!(of_job(&pool, kept.acceptance.job).await.unwrap(), kept.webhook);
}
