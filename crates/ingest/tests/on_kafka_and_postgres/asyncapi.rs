//! The door serves the descriptions of itself and of the topics.

use events::RecordKind;
use events::asyncapi::DOCUMENT;

use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_description_of_the_api_is_a_page_that_asks_nobody_but_its_own_origin() {
    let stage = Stage::new().await;
    let answer = stage.ingest.api.get("/docs").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = answer.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none';") && policy.contains("connect-src 'self'"), "{policy}");
    // Behind a proxy's path, the document is beside the page.
    assert!(answer.text.contains("fetch(\"openapi.json\")"));
    let document = stage.ingest.api.get("/openapi.json").await;
    assert!(document.json["paths"].get("/docs").is_some());
    stage.ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_description_of_the_topics_is_served_with_the_schemas_that_it_refers_to() {
    let stage = Stage::new().await;
    let answer = stage.ingest.api.get("/asyncapi.yaml").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/yaml"));
    assert_eq!(answer.text, DOCUMENT);

    let references = DOCUMENT.lines().filter_map(|line| line.split_once("$ref: .")?.1.split(' ').next());
    let mut schemas = Vec::new();
    for reference in references {
        let answer = stage.ingest.api.get(reference).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{reference}");
        schemas.push(answer.text);
    }
    assert_eq!(schemas, RecordKind::ALL.map(RecordKind::latest));
    stage.ingest.stop().await;
}
