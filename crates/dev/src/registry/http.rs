//! Confluent's API over the shelf.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::{Mutex, MutexGuard};
use serde::Deserialize;
use serde_json::{Value, json};

use super::shelf::{Refusal, Schema, SchemaType, Shelf, refuse};

/// The largest schema taken.
const BODY_BYTES_MAX: usize = 1024 * 1024;
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.schemaregistry.v1+json");

#[derive(Debug, Clone, Default)]
struct Shared(Arc<Mutex<Shelf>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Shelf> {
        // Each change of the shelf is complete before anything can panic.
        self.0.lock()
    }
}

type Answer = Result<Json, Refusal>;

/// A value with the registry's own media type.
struct Json(Value);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, MEDIA_TYPE)], self.0.to_string()).into_response()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        // 40401 is a 404, 50001 a 500, and a bare 404 is itself.
        let status = if self.code >= 1_000 { self.code / 100 } else { self.code };
        let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let body = Json(json!({ "error_code": self.code, "message": self.message }));
        (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body).into_response()
    }
}

/// An empty registry.
pub(super) fn router() -> Router {
    Router::new()
        .route("/", get(async || Json(json!({}))))
        .route("/schemas/types", get(async || Json(json!(["JSON", "PROTOBUF", "AVRO"]))))
        .route("/schemas/ids/{id}", get(schema_by_id))
        .route("/schemas/ids/{id}/schema", get(schema_text_by_id))
        .route("/schemas/ids/{id}/versions", get(versions_by_id))
        .route("/schemas/ids/{id}/subjects", get(subjects_by_id))
        .route("/subjects", get(async |State(shelf): State<Shared>| Json(json!(shelf.lock().subjects()))))
        .route("/subjects/{subject}", axum::routing::post(look_up).delete(delete_subject))
        .route("/subjects/{subject}/versions", get(versions).post(register))
        .route("/subjects/{subject}/versions/{version}", get(version).delete(delete_version))
        .route("/subjects/{subject}/versions/{version}/schema", get(version_text))
        .route("/config", get(level).put(set_level))
        .route("/config/{subject}", get(subject_level).put(set_subject_level))
        .fallback(async || Refusal { code: 404, message: "HTTP 404 Not Found".to_owned() })
        .method_not_allowed_fallback(async || Refusal { code: 405, message: "HTTP 405 Method Not Allowed".to_owned() })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Shared::default())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registration {
    schema: String,
    #[serde(default)]
    schema_type: SchemaType,
    #[serde(default)]
    references: Vec<Value>,
}

/// Clients differ in the content types that they send: the body counts, not its label.
fn read<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, Refusal> {
    match serde_json::from_slice(body) {
        Ok(read) => Ok(read),
        Err(error) => refuse(42201, format!("Invalid request: {error}")),
    }
}

fn read_schema(body: &[u8]) -> Result<Schema, Refusal> {
    let Registration { schema, schema_type, references } = read(body)?;
    Ok(Schema { schema, schema_type, references })
}

/// A version's full description.
fn described(shelf: &Shelf, subject: &str, (version, id): (usize, usize)) -> Answer {
    let schema = shelf.by_id(id)?;
    let mut described = json!({ "subject": subject, "version": version, "id": id });
    if let (Some(described), Value::Object(schema)) = (described.as_object_mut(), json!(schema)) {
        described.extend(schema);
    }
    Ok(Json(described))
}

fn parsed_id(id: &str) -> Result<usize, Refusal> {
    id.parse().or_else(|_| refuse(404, "HTTP 404 Not Found"))
}

async fn schema_by_id(State(shelf): State<Shared>, Path(id): Path<String>) -> Answer {
    Ok(Json(json!(shelf.lock().by_id(parsed_id(&id)?)?)))
}

async fn schema_text_by_id(State(shelf): State<Shared>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let text = shelf.lock().by_id(parsed_id(&id)?)?.schema.clone();
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response())
}

async fn versions_by_id(State(shelf): State<Shared>, Path(id): Path<String>) -> Answer {
    let shelf = shelf.lock();
    let uses = shelf.uses(parsed_id(&id)?)?;
    Ok(Json(uses.iter().map(|(subject, version)| json!({ "subject": subject, "version": version })).collect()))
}

async fn subjects_by_id(State(shelf): State<Shared>, Path(id): Path<String>) -> Answer {
    let shelf = shelf.lock();
    let uses = shelf.uses(parsed_id(&id)?)?;
    Ok(Json(uses.iter().map(|(subject, _)| json!(subject)).collect()))
}

async fn register(State(shelf): State<Shared>, Path(subject): Path<String>, body: Bytes) -> Answer {
    Ok(Json(json!({ "id": shelf.lock().register(&subject, read_schema(&body)?)? })))
}

async fn look_up(State(shelf): State<Shared>, Path(subject): Path<String>, body: Bytes) -> Answer {
    let shelf = shelf.lock();
    let found = shelf.look_up(&subject, read_schema(&body)?)?;
    described(&shelf, &subject, found)
}

async fn delete_subject(State(shelf): State<Shared>, Path(subject): Path<String>) -> Answer {
    Ok(Json(json!(shelf.lock().delete_subject(&subject)?)))
}

async fn versions(State(shelf): State<Shared>, Path(subject): Path<String>) -> Answer {
    Ok(Json(json!(shelf.lock().versions(&subject)?)))
}

async fn version(State(shelf): State<Shared>, Path((subject, version)): Path<(String, String)>) -> Answer {
    let shelf = shelf.lock();
    let found = shelf.version(&subject, &version)?;
    described(&shelf, &subject, found)
}

async fn version_text(
    State(shelf): State<Shared>,
    Path((subject, version)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let shelf = shelf.lock();
    let (_, id) = shelf.version(&subject, &version)?;
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], shelf.by_id(id)?.schema.clone()).into_response())
}

async fn delete_version(State(shelf): State<Shared>, Path((subject, version)): Path<(String, String)>) -> Answer {
    Ok(Json(json!(shelf.lock().delete_version(&subject, &version)?)))
}

#[derive(Debug, Deserialize)]
struct Level {
    compatibility: String,
}

async fn level(State(shelf): State<Shared>) -> Answer {
    Ok(Json(json!({ "compatibilityLevel": shelf.lock().level(None)? })))
}

async fn subject_level(State(shelf): State<Shared>, Path(subject): Path<String>) -> Answer {
    Ok(Json(json!({ "compatibilityLevel": shelf.lock().level(Some(&subject))? })))
}

async fn set_level(State(shelf): State<Shared>, body: Bytes) -> Answer {
    let Level { compatibility } = read(&body)?;
    shelf.lock().set_level(None, &compatibility)?;
    Ok(Json(json!({ "compatibility": compatibility.to_ascii_uppercase() })))
}

async fn set_subject_level(State(shelf): State<Shared>, Path(subject): Path<String>, body: Bytes) -> Answer {
    let Level { compatibility } = read(&body)?;
    shelf.lock().set_level(Some(&subject), &compatibility)?;
    Ok(Json(json!({ "compatibility": compatibility.to_ascii_uppercase() })))
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    const RECORD: &str = r#"{ "type": "record", "name": "A", "fields": [{"name": "a", "type": "int"}] }"#;
    const RECORD_TEXT: &str = r#"{"type":"record","name":"A","fields":[{"name":"a","type":"int"}]}"#;

    /// Calls one registry in order, and compares status and body of each answer.
    async fn check(calls: &[(&str, &str, Value, u16, Value)]) {
        let app = router();
        for (method, path, body, status, expected) in calls {
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let request = Request::builder().method(*method).uri(*path).body(Body::from(body)).unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
            let found = (response.status().as_u16(), response.headers()["content-type"].clone());
            let body: Value = serde_json::from_slice(&to_bytes(response.into_body(), 65_536).await.unwrap()).unwrap();
            assert_eq!((found, &body), ((*status, MEDIA_TYPE), expected), "{method} {path}");
        }
    }

    fn error(code: u32, message: &str) -> Value {
        json!({ "error_code": code, "message": message })
    }

    #[tokio::test]
    async fn a_schema_is_registered_once_and_found_by_id_subject_and_text() {
        let avro = json!({ "schema": RECORD });
        let int = json!({ "schema": "\"int\"", "schemaType": "AVRO" });
        let described = json!({ "subject": "a-value", "version": 1, "id": 1, "schema": RECORD_TEXT });
        check(&[
            ("GET", "/subjects", Value::Null, 200, json!([])),
            ("POST", "/subjects/a-value/versions", avro.clone(), 200, json!({ "id": 1 })),
            ("POST", "/subjects/a-value/versions", json!({ "schema": RECORD_TEXT }), 200, json!({ "id": 1 })),
            ("POST", "/subjects/b-value/versions", avro.clone(), 200, json!({ "id": 1 })),
            ("POST", "/subjects/a-value/versions", int, 200, json!({ "id": 2 })),
            ("GET", "/subjects", Value::Null, 200, json!(["a-value", "b-value"])),
            ("GET", "/schemas/ids/1", Value::Null, 200, json!({ "schema": RECORD_TEXT })),
            ("GET", "/schemas/ids/2/schema", Value::Null, 200, json!("int")),
            ("GET", "/schemas/ids/1/subjects", Value::Null, 200, json!(["a-value", "b-value"])),
            ("GET", "/schemas/ids/2/versions", Value::Null, 200, json!([{ "subject": "a-value", "version": 2 }])),
            ("GET", "/subjects/a-value/versions", Value::Null, 200, json!([1, 2])),
            ("GET", "/subjects/a-value/versions/1", Value::Null, 200, described.clone()),
            ("POST", "/subjects/a-value", avro, 200, described),
            (
                "GET",
                "/subjects/a-value/versions/latest",
                Value::Null,
                200,
                json!({ "subject": "a-value", "version": 2, "id": 2, "schema": "\"int\"" }),
            ),
        ])
        .await;
    }

    #[tokio::test]
    async fn refusals_carry_the_documented_codes() {
        let avro = json!({ "schema": RECORD });
        let not_found = error(40401, "Subject 'x' not found.");
        let invalid = "Invalid schema: an Avro schema is a type's name, an object with `type`, or an array of these";
        let bad_version = "The specified version '0' is not a valid version id. \
                           Allowed values are between [1, 2^31-1] and the string \"latest\"";
        let no_level = "Subject 'x' does not have subject-level compatibility configured";
        check(&[
            ("GET", "/subjects/x/versions", Value::Null, 404, not_found.clone()),
            ("GET", "/subjects/x/versions/1", Value::Null, 404, not_found.clone()),
            ("POST", "/subjects/x", avro.clone(), 404, not_found.clone()),
            ("DELETE", "/subjects/x", Value::Null, 404, not_found),
            ("GET", "/schemas/ids/7", Value::Null, 404, error(40403, "Schema 7 not found")),
            ("GET", "/schemas/ids/seven", Value::Null, 404, error(404, "HTTP 404 Not Found")),
            ("POST", "/subjects/a/versions", avro, 200, json!({ "id": 1 })),
            ("GET", "/subjects/a/versions/2", Value::Null, 404, error(40402, "Version 2 not found.")),
            ("GET", "/subjects/a/versions/0", Value::Null, 422, error(42202, bad_version)),
            ("POST", "/subjects/a", json!({ "schema": "\"int\"" }), 404, error(40403, "Schema not found")),
            ("POST", "/subjects/a/versions", json!({ "schema": "{}" }), 422, error(42201, invalid)),
            ("GET", "/config/x", Value::Null, 404, error(40408, no_level)),
            ("GET", "/nowhere", Value::Null, 404, error(404, "HTTP 404 Not Found")),
            ("PUT", "/subjects", Value::Null, 405, error(405, "HTTP 405 Method Not Allowed")),
        ])
        .await;
    }

    #[tokio::test]
    async fn levels_are_kept_and_unknown_ones_refused() {
        let levels = "NONE, BACKWARD, BACKWARD_TRANSITIVE, FORWARD, FORWARD_TRANSITIVE, FULL, FULL_TRANSITIVE";
        let invalid = error(42203, &format!("Invalid compatibility level. Valid values are {levels}"));
        let put = json!({ "compatibility": "BACKWARD_TRANSITIVE" });
        let got = json!({ "compatibilityLevel": "BACKWARD_TRANSITIVE" });
        check(&[
            ("GET", "/config", Value::Null, 200, json!({ "compatibilityLevel": "BACKWARD" })),
            ("PUT", "/config", put.clone(), 200, put.clone()),
            ("GET", "/config", Value::Null, 200, got.clone()),
            ("PUT", "/config/a", put.clone(), 200, put),
            ("GET", "/config/a", Value::Null, 200, got),
            ("PUT", "/config/a", json!({ "compatibility": "SOME" }), 422, invalid),
        ])
        .await;
    }

    #[tokio::test]
    async fn a_deleted_version_is_gone_and_its_number_is_not_used_again() {
        let schema = |name: &str| json!({ "schema": format!("\"{name}\"") });
        check(&[
            ("POST", "/subjects/a/versions", schema("int"), 200, json!({ "id": 1 })),
            ("POST", "/subjects/a/versions", schema("long"), 200, json!({ "id": 2 })),
            ("DELETE", "/subjects/a/versions/1", Value::Null, 200, json!(1)),
            ("GET", "/subjects/a/versions", Value::Null, 200, json!([2])),
            ("GET", "/subjects/a/versions/1", Value::Null, 404, error(40402, "Version 1 not found.")),
            ("POST", "/subjects/a/versions", schema("string"), 200, json!({ "id": 3 })),
            ("GET", "/subjects/a/versions", Value::Null, 200, json!([2, 3])),
            ("DELETE", "/subjects/a", Value::Null, 200, json!([2, 3])),
            ("GET", "/subjects", Value::Null, 200, json!([])),
        ])
        .await;
    }
}
