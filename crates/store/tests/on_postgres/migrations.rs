use std::time::Duration;

use store::{Error, Pool, Role, Settings};

use crate::database::Database;

#[tokio::test]
async fn databases_of_one_cluster_are_migrated_at_once() {
    let mut urls = Vec::new();
    for _ in 0..4 {
        urls.push(test_kit::postgres_database().await);
    }
    // Twice each: two processes may migrate the same database too.
    let migrate = |url: String| tokio::spawn(async move { store::migrate(&url).await });
    let tasks: Vec<_> = urls.iter().chain(&urls).cloned().map(migrate).collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    for url in urls {
        let pool = Pool::open(&Settings::new(url), Role::Ingest).unwrap();
        store::flows::all(&pool).await.unwrap();
    }
}

#[tokio::test]
async fn a_login_that_is_no_superuser_migrates_and_serves() {
    let url = test_kit::postgres_database().await;
    let administrator = Database { url: url.clone() };
    let (login, database) = (test_kit::prefix(), url.rsplit_once('/').unwrap().1.to_owned());
    // As deploy/postgres/roles.sql; another database's migration made the roles already, or makes them now.
    Database::fresh().await;
    let roles = Role::ALL.map(Role::name).join(", ");
    let grants = format!("create role {login} login in role {roles}; grant create on database {database} to {login}");
    administrator.run(&grants).await;

    let url = url.replace("postgres@", &format!("{login}@"));
    store::migrate(&url).await.unwrap();
    let pool = |role| Pool::open(&Settings::new(&url), role).unwrap();
    store::outbox::ensure_partitions(&pool(Role::Relay), 1).await.unwrap();
    let batch = [crate::database::acceptance("a")];
    store::acceptances::accept_batch(&pool(Role::Ingest), &batch).await.unwrap();
    assert_eq!(administrator.count("outbox.messages_default").await, 0);
    assert_eq!(administrator.count("outbox.messages").await, 2);
}

#[tokio::test]
async fn a_database_that_is_not_migrated_says_so() {
    let url = test_kit::postgres_database().await;
    let pool = Pool::open(&Settings::new(url), Role::Ingest).unwrap();
    let error = store::flows::all(&pool).await.unwrap_err();
    assert!(matches!(error, Error::NotMigrated(_)), "{error:?}");
    assert!(error.is_unavailable());
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable_and_comes_back() {
    let mut server = test_kit::Postgres::start(test_kit::PostgresOptions::default()).await.unwrap();
    let url = server.create_database("away").unwrap();
    store::migrate(&url).await.unwrap();
    let settings = Settings { acquire_timeout_ms: 300, ..Settings::new(url) };
    let pool = Pool::open(&settings, Role::Ingest).unwrap();
    pool.ping().await.unwrap();

    server.kill9();
    let error = pool.ping().await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert!(
        store::acceptances::accept_batch(&pool, &[crate::database::acceptance("a")])
            .await
            .unwrap_err()
            .is_unavailable()
    );

    server.restart().await.unwrap();
    test_kit::eventually(Duration::from_secs(30), "the pool recovers", async || pool.ping().await.ok()).await;
}

#[tokio::test]
async fn nothing_at_the_address_is_unavailable() {
    let settings = Settings { acquire_timeout_ms: 300, ..Settings::new("postgres://nobody@127.0.0.1:1/none") };
    let pool = Pool::open(&settings, Role::Relay).unwrap();
    assert!(pool.begin().await.unwrap_err().is_unavailable());
    assert!(store::migrate("postgres://nobody@127.0.0.1:1/none").await.unwrap_err().is_unavailable());
    assert!(matches!(Pool::open(&Settings::new("mysql://x"), Role::Relay), Err(Error::Url(_))));
}
