#![expect(clippy::disallowed_methods, reason = "tests own what they start")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use bus::{Reader, Registry, SingleRecords};
use flow::definition::Route;
use flow::event::{EventKind, JobStatus};
use service_kit::config::{Sources, load};
use service_kit::health::{self, Readiness};
use service_kit::identity::{Clock, Ids};
use service_kit::telemetry::Metrics;
use store::{Pool, Role};
use tower::ServiceExt;
use web::problem::PublicUrl;

use super::*;
use crate::accept::Acceptor;
use crate::catalog::Catalog;
use crate::config::{DEFAULT, SECTION};
use crate::leaving::Leaving;
use crate::recent::RecentJobs;

/// Problems of the catalogue that no address answers with yet.
const NOT_YET: &[Kind] = &[];

fn config() -> Config {
    load(SECTION, DEFAULT, &Sources::default()).unwrap()
}

fn parse(text: &str) -> Definition {
    Definition::parse_yaml("test.yaml", text, &mut |_| Err("no references here".to_owned())).unwrap()
}

/// The API's router, of which nothing but its addresses is asked.
fn router() -> Router {
    let pool = Pool::open(&store::Settings::new("postgres://nobody@127.0.0.1:1/none"), Role::Ingest).unwrap();
    let readiness = Readiness::new(Clock::system(), "ingest");
    let (acceptor, _) = Acceptor::start(pool.clone(), readiness.clone());
    let api = Api {
        documents: None,
        auth: crate::auth::Auth::new(&Default::default()).unwrap(),
        config: config(),
        public_url: PublicUrl::default(),
        callback_secrets: flow::callback::Secrets::default(),
        trigger_secrets: Default::default(),
        clock: Clock::system(),
        ids: Ids::system(),
        acceptor,
        reader: Reader::new(Registry::new("http://127.0.0.1:1", None).unwrap()),
        records: SingleRecords::new(&bus::Settings::new("127.0.0.1:1", "http://127.0.0.1:1")).unwrap(),
        catalog: Catalog::default(),
        cancels: crate::cancels::Cancels::new(RecentJobs::new(1, 1)),
        recent: RecentJobs::new(1, 1),
        leaving: Leaving::before(&service_kit::CancellationToken::new()),
        flags: Default::default(),
        callers: Default::default(),
        proxy: crate::proxy::Proxy::new(&config(), Default::default(), Ids::system()).unwrap(),
        guard: outbound::Guard::none(),
        estimates: Default::default(),
        polls: Default::default(),
        quotas: crate::quotas::Quotas::new(crate::limits::FlowLimits::default()),
        whole_batches: std::sync::Arc::new(tokio::sync::Semaphore::new(1)),
        projected: crate::projected::Projected::default(),
        reports: crate::progress::Reports::default(),
        streams: crate::streams::Streams::new(&config()),
        bus: bus::Settings::new("127.0.0.1:1", ""),
        reports_out: crate::reports_out::ReportsOut::new(&bus::Settings::new("127.0.0.1:1", "")).unwrap(),
        pool,
        readiness: readiness.clone(),
        planner: OnceLock::new(),
        dev_capacity: None,
        backpressure: crate::backpressure::Backpressure::new(0),
    };
    let health = health::router(readiness, Metrics::install().unwrap());
    crate::http::router(Arc::new(api), health).unwrap()
}

/// The router tells its paths only where it is printed: `RouteId(3): "/v1/jobs/{job}"`.
fn paths(router: &Router) -> BTreeSet<String> {
    let printed = format!("{router:?}");
    // The fallback router comes next; it has no paths.
    let printed = printed.split_once("fallback_router").map_or("", |(routes, _)| routes);
    let path = |part: &str| Some(part.split_once("): \"")?.1.split_once('"')?.0.to_owned());
    printed.split("RouteId(").filter_map(path).collect()
}

async fn methods(router: &Router, path: &str) -> Vec<String> {
    let address = path.replace(['{', '}'], "");
    let request = Request::builder().method("TRACE").uri(address).body(Body::empty()).unwrap();
    let answer = router.clone().oneshot(request).await.unwrap();
    let allowed = answer.headers().get("allow").unwrap_or_else(|| panic!("{path}: {}", answer.status()));
    let methods = allowed.to_str().unwrap().split(',').map(|method| method.trim().to_lowercase());
    methods.filter(|method| method != "head").collect()
}

#[tokio::test]
async fn the_document_has_the_routers_addresses_and_no_others() {
    let router = router();
    let mut found = BTreeSet::new();
    for path in paths(&router) {
        found.extend(methods(&router, &path).await.into_iter().map(|method| format!("{method} {path}")));
    }
    let document = document(&config(), &[]);
    let described: BTreeSet<String> = operations(&document).map(|(name, _)| name).collect();
    assert_eq!(described, found);
    assert!(found.contains("post /v1/flows/{flow}/jobs"), "{found:?}");
    for path in paths(&router) {
        let route = Route { method: "POST".to_owned(), path: path.replace(['{', '}'], "") };
        assert!(route.is_own(), "a flow could have the route {path}");
    }
}

/// `get /healthz` and what is said of it.
fn operations(document: &Value) -> impl Iterator<Item = (String, &Value)> {
    let items = document["paths"].as_object().unwrap().iter();
    items.flat_map(|(path, item)| {
        item.as_object().unwrap().iter().map(move |(method, operation)| (format!("{method} {path}"), operation))
    })
}

#[test]
fn every_problem_of_the_catalogue_is_described_somewhere() {
    let document = document(&config(), &[]);
    let text = document["paths"].to_string() + &document["components"]["responses"].to_string();
    for entry in CATALOGUE {
        let is_described = text.contains(&format!("\"#/components/examples/{}\"", entry.name));
        assert_eq!(is_described, !NOT_YET.contains(&entry.kind), "{}", entry.name);
        assert_eq!(document["components"]["examples"][entry.name]["value"]["status"], entry.status);
    }
}

#[test]
fn a_test_provokes_every_problem_that_is_described() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = ["ingest/tests/on_kafka_and_postgres", "e2e/tests/it"].map(|folder| crates.join(folder));
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    // Those that the server and the frame find by themselves.
    let of_the_frame = ["web/src/server/tests.rs", "web/src/frame.rs"].map(|file| crates.join(file));
    let text: String = files.chain(of_the_frame).map(|file| std::fs::read_to_string(file).unwrap()).collect();
    for entry in CATALOGUE.iter().filter(|entry| !NOT_YET.contains(&entry.kind)) {
        let asked_for = [format!("\"{}\"", entry.name), format!("/problems/{}\"", entry.name)];
        assert!(asked_for.iter().any(|name| text.contains(name)), "no test provokes `{}`", entry.name);
    }
}

#[test]
fn the_words_of_the_document_are_those_of_the_code() {
    let schemas = document(&config(), &[])["components"]["schemas"].clone();
    let statuses: Vec<Value> = JobStatus::ALL.iter().map(|status| status.as_str().into()).collect();
    assert_eq!(schemas["Status"]["enum"], Value::from(statuses));
    let kinds: Vec<Value> = EventKind::ALL.iter().map(|kind| kind.as_str().into()).collect();
    assert_eq!(schemas["JobEvent"]["properties"]["type"]["enum"], Value::from(kinds));
}

#[test]
fn settings_are_told() {
    let mut config = config();
    (config.idempotency_key_required, config.idempotency_retention_h, config.body_bytes_max) = (true, 7, 4_096);
    config.wait_max_s = 17;
    let document = document(&config, &[]);
    let key = &document["components"]["parameters"]["Idempotency-Key"];
    assert_eq!(key["required"], true);
    assert!(key["description"].as_str().unwrap().contains("remembered for 7 hours"), "{key}");
    let prefer = &document["components"]["parameters"]["Prefer"]["description"];
    assert!(prefer.as_str().unwrap().ends_with("The longest wait is 17 s."), "{prefer}");
    let body = &document["paths"][SUBMIT]["post"]["requestBody"]["description"];
    assert!(body.as_str().unwrap().contains("4096 bytes"), "{body}");
}

#[test]
fn whatever_submits_tells_its_limits_and_every_429_when_to_come_again() {
    let document = document(&config(), &[]);
    let headers = |path: &str, method: &str| &document["paths"][path][method]["responses"]["429"]["headers"];
    for path in [SUBMIT, "/v1/flows/{flow}/jobs:batch", "/v1/jobs/{job}/retry"] {
        for name in ["RateLimit", "RateLimit-Policy", "Retry-After"] {
            assert!(headers(path, "post").get(name).is_some(), "{path} {name}");
        }
    }
    let status = headers("/v1/jobs/{job}", "get");
    assert!(status.get("Retry-After").is_some() && status.get("RateLimit").is_none(), "{status}");
}

#[test]
fn a_flow_is_found_at_its_own_route_with_its_input_and_one_without_at_the_common_path() {
    let order = parse(
        "flow: order\nroute: PUT /orders\nsummary: Buy\n\
         input: { $defs: { q: { type: integer } }, properties: { qty: { $ref: '#/$defs/q' } } }\n\
         steps: [{ id: a, native: a }]\n",
    );
    let plain = parse("flow: plain\nsteps: [{ id: a, native: a }]\n");
    let greedy = parse("flow: greedy\nroute: POST /healthz\nsteps: [{ id: a, native: a }]\n");
    let document = document(&config(), &[order, plain, greedy]);
    let order = &document["paths"]["/orders"]["put"];
    assert_eq!((&order["operationId"], &order["summary"]), (&json!("submit-order"), &json!("Buy")));
    let schema = &order["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(schema["$ref"], "#/components/schemas/order.input");
    let input = &document["components"]["schemas"]["order.input"];
    assert_eq!(input["$id"], "urn:meanwhile:flow:order:input", "its references lead into it");
    assert!(!order["parameters"].to_string().contains("parameters/flow"), "{}", order["parameters"]);
    let query = |operation: &Value| operation["parameters"].to_string().contains("start_at");
    let plain = &document["paths"]["/v1/flows/plain/jobs"]["post"];
    assert!(query(plain) && !query(order), "the query of a route of its own is the caller's");
    assert_eq!(plain["requestBody"]["content"]["application/json"]["schema"], json!({}));
    assert!(document["paths"]["/healthz"].get("post").is_none());
    let ids: Vec<_> = operations(&document).map(|(_, operation)| operation["operationId"].to_string()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
}

#[test]
fn every_answer_is_described_with_its_correlation_id_and_no_working_note_is_left() {
    let document = document(&config(), &[]);
    let text = document.to_string();
    assert!(!text.contains("\"x-problems"), "{text}");
    for (name, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let target = response["$ref"].as_str().and_then(|target| document.pointer(target.trim_start_matches('#')));
            let headers = &target.unwrap_or(response)["headers"];
            assert!(headers.get("X-Correlation-ID").is_some(), "{name} {status}: {response}");
        }
        assert!(operation["parameters"].to_string().contains("traceparent"), "{name}");
    }
}

#[test]
fn a_sandbox_is_told_and_the_examples_of_an_input_are_those_of_its_schema() {
    let sandbox = parse(
        "flow: try\nsandbox: true\ninput: { type: object, examples: [{ n: 1 }, { n: 2 }] }\n\
         steps: [{ id: a, native: a, simulate: {} }]\n",
    );
    let document = document(&config(), &[sandbox.clone(), sandbox.for_real()]);
    assert!(document["paths"]["/v1/flows/try/jobs"]["post"].get("x-sandbox").is_none(), "the later one counts");
    let document = super::document(&config(), &[sandbox]);
    let operation = &document["paths"]["/v1/flows/try/jobs"]["post"];
    assert_eq!(operation["x-sandbox"], true);
    assert!(operation["description"].as_str().unwrap().contains("nothing is done"), "{operation}");
    let examples = &operation["requestBody"]["content"]["application/json"]["examples"];
    assert_eq!(*examples, json!({ "try-1": { "value": { "n": 1 } }, "try-2": { "value": { "n": 2 } } }));
}
