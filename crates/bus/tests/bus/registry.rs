//! The registry's client against a real registry.

use std::collections::BTreeSet;

use bus::{Reader, Registry, RegistryError, Unreadable, register_subjects, until_available};
use events::topic::Topics;
use events::{RecordKind, decode_slip, slip_record};

#[tokio::test(flavor = "multi_thread")]
async fn schemas_are_registered_once_and_resolved_by_id() {
    let registry = Registry::new(&test_kit::registry().await, None).unwrap();
    let topics = Topics::new(test_kit::prefix());
    register_subjects(&registry, &topics, &BTreeSet::from(["q".to_owned()])).await.unwrap();
    let reader = Reader::new(registry.clone());
    let ids = reader.writer_ids(&topics).await.unwrap();
    assert_eq!(ids, reader.writer_ids(&topics).await.unwrap());
    for kind in RecordKind::ALL {
        let schema = registry.resolve(ids.of(kind)).await.unwrap();
        let (_, name) = kind.full_name().rsplit_once('.').unwrap();
        assert!(schema.contains(&format!("\"{name}\"")), "{schema}");
    }
    registry.reachable().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_id_is_told_from_a_registry_that_is_not_there() {
    let url = test_kit::registry().await;
    let registry = Registry::new(&url, None).unwrap();
    assert_eq!(registry.resolve(987_654_321).await, Err(RegistryError::Unknown(987_654_321)));
    // A wrong path answers 404 as well; that says nothing about the schema.
    let wrong = Registry::new(&format!("{url}/no/such/path"), None).unwrap();
    assert!(matches!(wrong.resolve(1).await, Err(RegistryError::Unavailable(_))));
    let nobody = Registry::new("http://127.0.0.1:9", None).unwrap();
    assert!(matches!(nobody.resolve(1).await, Err(RegistryError::Unavailable(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_whose_schemas_the_registry_has_lost_are_read_by_our_own() {
    let registry = Registry::new(&test_kit::registry().await, None).unwrap();
    let topics = Topics::new(test_kit::prefix());
    let reader = Reader::new(registry);
    let ids = reader.writer_ids(&topics).await.unwrap();
    let slip = test_kit::sample_slip(test_kit::sample_job(), 1);
    let record = slip_record(&topics, &ids, "q", &slip, &test_kit::TEST_TRACE).unwrap();
    let mut value = record.value.unwrap();
    // Of a schema that is gone; of an id that is another schema's now.
    for id in [987_654_321, ids.job_event] {
        value[1..5].copy_from_slice(&id.to_be_bytes());
        assert_eq!(reader.read(Some(&value), decode_slip).await.unwrap(), slip, "schema id {id}");
    }
    value[1..5].copy_from_slice(&987_654_321_u32.to_be_bytes());
    let of_nobody = reader.read(Some(&value[..9]), decode_slip).await;
    assert!(matches!(of_nobody, Err(Unreadable::NotNow(RegistryError::Unknown(_)))), "it waits: {of_nobody:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incompatible_schema_is_refused() {
    let registry = Registry::new(&test_kit::registry().await, None).unwrap();
    let subject = format!("{}-value", test_kit::prefix());
    let one = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}"#;
    registry.register(&subject, one).await.unwrap();
    registry.set_compatibility(&subject, "BACKWARD_TRANSITIVE").await.unwrap();
    let two = r#"{"type":"record","name":"R","fields":[{"name":"b","type":"int"}]}"#;
    let outcome = registry.register(&subject, two).await;
    assert!(matches!(outcome, Err(RegistryError::Refused(_))), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_when_the_registry_is_back() {
    let mut server = test_kit::Registry::start().await.unwrap();
    let registry = Registry::new(&server.url(), None).unwrap();
    server.kill9();
    assert!(matches!(registry.resolve(1).await, Err(RegistryError::Unavailable(_))));
    let waiting = tokio::spawn(async move { until_available(|| registry.register("s", "\"string\"")).await });
    server.restart().await.unwrap();
    waiting.await.unwrap().unwrap();
}
