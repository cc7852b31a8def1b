//! The door serves the description of the topics.

use events::RecordKind;
use events::asyncapi::DOCUMENT;

use crate::stage::Stage;

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
