//! A real Jaeger, and what its query API says of a trace.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use test_kit::{Launch, Port, Process, eventually, http_client, repository};
use tokio::sync::OnceCell;

const READY_WITHIN: Duration = Duration::from_secs(60);
/// The last span of a trace may take so long to arrive: exporters and collectors wait for company.
const SPANS_WITHIN: Duration = Duration::from_secs(60);

/// The binary that scripts/tools/install compiled.
pub(crate) fn program() -> PathBuf {
    let output = Command::new(repository().join("scripts/tools/path")).arg("jaeger").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// A Jaeger that keeps traces in memory.
#[derive(Debug)]
pub(crate) struct Jaeger {
    _process: Process,
    query: Port,
    otlp: Port,
    _query_grpc: Port,
}

/// One for all tests of this binary; it goes with the process.
pub(crate) async fn jaeger() -> &'static Jaeger {
    static JAEGER: OnceCell<Jaeger> = OnceCell::const_new();
    JAEGER.get_or_init(Jaeger::start).await
}

impl Jaeger {
    async fn start() -> Self {
        let (query, otlp, query_grpc) = (Port::take().unwrap(), Port::take().unwrap(), Port::take().unwrap());
        let config = repository().join("crates/e2e/tests/traces/jaeger.yaml");
        let launch = Launch::new("jaeger", program())
            .arg("--config")
            .arg(config)
            .env("QUERY_PORT", query.number().to_string())
            .env("QUERY_GRPC_PORT", query_grpc.number().to_string())
            .env("OTLP_PORT", otlp.number().to_string());
        let mut process = Process::start(launch).unwrap();
        let services = format!("http://127.0.0.1:{}/api/services", query.number());
        let answers =
            async || http_client().get(&services).send().await.is_ok_and(|answer| answer.status().is_success());
        process.wait_until(READY_WITHIN, "Jaeger answers", answers).await.unwrap();
        Self { _process: process, query, otlp, _query_grpc: query_grpc }
    }

    /// Where spans are sent, as `OTEL_EXPORTER_OTLP_ENDPOINT` has it.
    pub(crate) fn otlp(&self) -> String {
        format!("http://127.0.0.1:{}", self.otlp.number())
    }

    /// The trace as it is now; empty when there is none.
    pub(crate) async fn trace(&self, trace_id: &str) -> Tree {
        let url = format!("http://127.0.0.1:{}/api/traces/{trace_id}", self.query.number());
        let body: Value = http_client().get(url).send().await.unwrap().json().await.unwrap();
        Tree::read(&body["data"][0])
    }

    /// The trace, once it is as big as it should be.
    pub(crate) async fn trace_of(&self, trace_id: &str, spans: usize) -> Tree {
        eventually(SPANS_WITHIN, &format!("{spans} spans of {trace_id}"), async || {
            let tree = self.trace(trace_id).await;
            (tree.spans.len() >= spans).then_some(tree)
        })
        .await
    }
}

/// One span.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) service: String,
    pub(crate) parent: Option<String>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) start_us: u64,
    pub(crate) duration_us: u64,
}

impl Span {
    pub(crate) fn tag(&self, key: &str) -> &str {
        self.tags.get(key).map_or("", String::as_str)
    }

    /// The failure as a person reads it; empty where there is none.
    pub(crate) fn failure(&self) -> (&str, &str) {
        let failed = self.tag("otel.status_code") == "ERROR";
        if failed { (self.tag("error.type"), self.tag("otel.status_description")) } else { ("", "") }
    }
}

/// A trace.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    pub(crate) spans: Vec<Span>,
}

impl Tree {
    fn read(trace: &Value) -> Self {
        let spans = trace["spans"].as_array().into_iter().flatten().map(|span| read_span(trace, span));
        let mut spans: Vec<Span> = spans.collect();
        spans.sort_by_key(|span| span.start_us);
        Self { spans }
    }

    /// The spans below this one, in the order in which they began.
    pub(crate) fn below(&self, parent: &str) -> Vec<&Span> {
        self.spans.iter().filter(|span| span.parent.as_deref() == Some(parent)).collect()
    }

    /// The only span of this name below `parent`.
    pub(crate) fn only(&self, parent: &str, name: &str) -> &Span {
        let found: Vec<&Span> = self.below(parent).into_iter().filter(|span| span.name == name).collect();
        assert_eq!(found.len(), 1, "`{name}` below {parent} in\n{}", self.drawn());
        found[0]
    }

    /// The spans of this name.
    pub(crate) fn named(&self, name: &str) -> Vec<&Span> {
        self.spans.iter().filter(|span| span.name == name).collect()
    }

    /// The span whose parent is not of this trace's spans.
    pub(crate) fn root(&self) -> &Span {
        let known = |id: &String| self.spans.iter().any(|span| span.id == *id);
        let roots: Vec<&Span> = self.spans.iter().filter(|span| !span.parent.as_ref().is_some_and(known)).collect();
        assert_eq!(roots.len(), 1, "one root in\n{}", self.drawn());
        roots[0]
    }

    /// As a person would draw it.
    pub(crate) fn drawn(&self) -> String {
        let known = |id: &String| self.spans.iter().any(|span| span.id == *id);
        let mut lines = vec![];
        for root in self.spans.iter().filter(|span| !span.parent.as_ref().is_some_and(known)) {
            self.draw(root, 0, &mut lines);
        }
        lines.join("\n")
    }

    fn draw(&self, span: &Span, depth: usize, lines: &mut Vec<String>) {
        let (error_type, description) = span.failure();
        let failure = if error_type.is_empty() { String::new() } else { format!("  ! {error_type}: {description}") };
        let (indent, duration_ms) = ("  ".repeat(depth), span.duration_us as f64 / 1_000.0);
        lines.push(format!("{indent}{} [{}, {duration_ms:.1} ms]{failure}", span.name, span.service));
        for child in self.below(&span.id) {
            self.draw(child, depth + 1, lines);
        }
    }
}

fn read_span(trace: &Value, span: &Value) -> Span {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // Jaeger tells a parent and a link to it as one reference.
    let mut references = span["references"].as_array().into_iter().flatten();
    let parent = references.find(|reference| reference["refType"] == "CHILD_OF");
    let tag = |tag: &Value| {
        let value = &tag["value"];
        (text(&tag["key"]), value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    Span {
        id: text(&span["spanID"]),
        name: text(&span["operationName"]),
        service: text(&trace["processes"][span["processID"].as_str().unwrap_or_default()]["serviceName"]),
        parent: parent.map(|reference| text(&reference["spanID"])),
        tags: span["tags"].as_array().into_iter().flatten().map(tag).collect(),
        start_us: span["startTime"].as_u64().unwrap_or_default(),
        duration_us: span["duration"].as_u64().unwrap_or_default(),
    }
}
