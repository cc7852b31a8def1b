use store::slot::{self, SlotError};
use store::{Pool, Role, Settings};
use test_kit::{Postgres, PostgresOptions};

use crate::database::{Database, record};

fn slot_name() -> String {
    format!("{}_outbox", test_kit::prefix())
}

/// The server, and with it the number of its slots, is shared with other tests.
async fn drop_slot(database: &Database, slot: &str) {
    database.run(&format!("select pg_drop_replication_slot('{slot}')")).await;
}

#[tokio::test]
async fn a_slot_is_created_once_and_told_about() {
    let database = Database::fresh().await;
    let (pool, slot) = (database.pool(Role::Relay), slot_name());
    assert!(matches!(slot::status(&pool, &slot).await, Err(SlotError::Missing { .. })));
    assert!(slot::create(&pool, &slot).await.unwrap());
    assert!(!slot::create(&pool, &slot).await.unwrap());
    let status = slot::status(&pool, &slot).await.unwrap();
    assert!(!status.active);
    assert_eq!(status.wal_status, "reserved");
    let mut tx = pool.begin().await.unwrap();
    store::outbox::append(&mut tx, &[record("a")]).await.unwrap();
    tx.commit().await.unwrap();
    let later = slot::status(&pool, &slot).await.unwrap();
    assert_eq!(later.confirmed_flush_lsn, status.confirmed_flush_lsn);
    assert!(later.lag_bytes > 0);

    let elsewhere = Database::fresh().await;
    let error = slot::create(&elsewhere.pool(Role::Relay), &slot).await.unwrap_err();
    assert!(matches!(error, SlotError::Foreign { .. }), "{error:?}");
    drop_slot(&database, &slot).await;
}

#[tokio::test]
async fn the_log_has_rows_of_the_default_partition_as_rows_of_the_outbox_also_once_that_is_set_aside() {
    let database = Database::fresh().await;
    let (pool, slot) = (database.pool(Role::Relay), slot_name());
    slot::create(&pool, &slot).await.unwrap();
    for (value, made) in [("before", 2), ("after", 0)] {
        let mut tx = pool.begin().await.unwrap();
        store::outbox::append(&mut tx, &[record(value)]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(store::outbox::ensure_partitions(&pool, 1).await.unwrap(), made);
    }
    assert_eq!(database.count("pg_class where relname like 'messages\\_aside\\_%' and relkind = 'r'").await, 1);
    // The inserts in the stream, and the table that each names.
    let inserts = format!(
        "pg_logical_slot_peek_binary_changes('{slot}', null, null, 'proto_version', '1',
            'publication_names', '{}') where get_byte(data, 0) = ascii('I')",
        store::outbox::PUBLICATION
    );
    let of_the_outbox = "('x' || encode(substring(data from 2 for 4), 'hex'))::bit(32)::bigint
        = 'outbox.messages'::regclass::oid::bigint";
    assert_eq!(database.count(&inserts).await, 2);
    assert_eq!(database.count(&format!("{inserts} and {of_the_outbox}")).await, 2);
    drop_slot(&database, &slot).await;
}

#[tokio::test]
async fn the_server_has_one_identity_and_a_log_that_grows() {
    let database = Database::fresh().await;
    let pool = database.pool(Role::Relay);
    let before = slot::identity(&pool).await.unwrap();
    database.run("select pg_switch_wal()").await;
    let after = slot::identity(&pool).await.unwrap();
    assert_eq!((before.system_identifier, before.timeline), (after.system_identifier, after.timeline));
    assert_eq!(before.timeline, 1);
    assert!(before.system_identifier != 0 && before.current_lsn < after.current_lsn);
}

#[tokio::test]
async fn a_login_that_may_not_replicate_is_named() {
    let database = Database::fresh().await;
    let login = test_kit::prefix();
    database.run(&format!("create role {login} login; grant meanwhile_relay to {login}")).await;
    let url = database.url.replace("postgres@", &format!("{login}@"));
    let pool = Pool::open(&Settings::new(url), Role::Relay).unwrap();
    pool.ping().await.unwrap();
    let error = slot::create(&pool, &slot_name()).await.unwrap_err();
    assert!(matches!(&error, SlotError::MayNotReplicate { login: named } if *named == login), "{error:?}");
    database.run(&format!("alter role {login} replication")).await;
    let slot = slot_name();
    assert!(slot::create(&pool, &slot).await.unwrap());
    drop_slot(&database, &slot).await;
}

#[tokio::test]
async fn a_publication_that_is_missing_is_named() {
    let database = Database::fresh().await;
    database.run("drop publication meanwhile_outbox").await;
    let error = slot::check_server(&database.pool(Role::Relay)).await.unwrap_err();
    assert!(matches!(error, SlotError::PublicationMissing), "{error:?}");
}

#[tokio::test]
async fn a_log_without_logical_decoding_is_named() {
    let settings = vec![("wal_level".to_owned(), "replica".to_owned())];
    let server = Postgres::start(PostgresOptions { settings, ..PostgresOptions::default() }).await.unwrap();
    let url = server.create_database("plain").unwrap();
    store::migrate(&url).await.unwrap();
    let pool = Pool::open(&Settings::new(url), Role::Relay).unwrap();
    match slot::create(&pool, "plain_outbox").await {
        Err(SlotError::WalLevel { wal_level }) => assert_eq!(wal_level, "replica"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_slot_that_fell_too_far_behind_is_named() {
    let settings = [("max_slot_wal_keep_size", "1MB"), ("max_replication_slots", "1")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    let server = Postgres::start(PostgresOptions { settings, ..PostgresOptions::default() }).await.unwrap();
    let database = Database { url: server.create_database("behind").unwrap() };
    store::migrate(&database.url).await.unwrap();
    let pool = database.pool(Role::Relay);
    assert!(slot::create(&pool, "behind_outbox").await.unwrap());
    assert!(matches!(slot::create(&pool, "second_outbox").await, Err(SlotError::NoSlotLeft)));
    for _ in 0..4 {
        database.run("select pg_logical_emit_message(false, 'x', repeat('x', 1000000))").await;
        database.run("select pg_switch_wal()").await;
    }
    database.run("checkpoint").await;
    let error = slot::status(&pool, "behind_outbox").await.unwrap_err();
    assert!(matches!(error, SlotError::Invalidated { .. }), "{error:?}");
}
