//! Traces on their way out: OTLP over HTTP (protobuf) to a collector, in batches, by a thread of the SDK.
//!
//! Promise: a collector that is down or slow costs spans, never jobs: what does not fit into the queue is dropped.

use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, SpanData, SpanExporter,
};

use crate::config::{HeadSampler, TraceSettings, redact};

/// Spans that wait for the collector, unless OTEL_BSP_MAX_QUEUE_SIZE says otherwise: some 10 MiB.
const QUEUE_SPANS_MAX: usize = 16_384;
/// A span waits this long for a batch to fill, unless OTEL_BSP_SCHEDULE_DELAY says otherwise.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// Exporting the remaining spans may take this long when the process leaves.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// An export may take this long, unless OTEL_EXPORTER_OTLP_TRACES_TIMEOUT or OTEL_EXPORTER_OTLP_TIMEOUT say otherwise.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// The path under which a collector takes traces (OTLP specification, section OTLP/HTTP).
const TRACES_PATH: &str = "/v1/traces";
const MILLION: f64 = 1_000_000.0;

/// The export of this process's traces; without an endpoint it does nothing.
#[derive(Debug, Default)]
#[must_use = "`finish` exports the remaining spans"]
pub struct Export(Option<SdkTracerProvider>);

impl Export {
    /// Exports the remaining spans, within a bounded time.
    pub async fn finish(self) {
        let Some(provider) = self.0 else { return };
        // The exporter's own client blocks. A collector that is down was logged already.
        let _ = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
    }
}

/// Makes the export and its tracer, if an endpoint is set.
pub(super) fn start(
    settings: &TraceSettings,
    service: &str,
    instance: &str,
) -> anyhow::Result<Option<(Export, SdkTracer)>> {
    let Some(endpoint) = settings.endpoint.as_deref() else { return Ok(None) };
    crate::tls::install_ring();
    let inner = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(traces_url(endpoint))
        .with_http_client(http_client()?)
        .build()
        .with_context(|| format!("OTEL_EXPORTER_OTLP_ENDPOINT={} cannot be used", redact(endpoint)))?;
    let exporter = ReportingExporter { inner, endpoint: redact(endpoint), failing: AtomicBool::new(false) };
    let provider = SdkTracerProvider::builder()
        .with_sampler(sampler(settings.sampler))
        .with_resource(resource(service, instance))
        .with_span_processor(batches(exporter))
        .build();
    let tracer = provider.tracer("meanwhile");
    Ok(Some((Export(Some(provider)), tracer)))
}

/// The SDK's own client would follow another rule for proxies. It blocks, so no runtime may be around while it is made.
fn http_client() -> anyhow::Result<reqwest::blocking::Client> {
    let proxies = proxies::Proxies::of_process()?.for_reqwest()?;
    let build = move || {
        #[expect(clippy::disallowed_methods, reason = "it follows the rule, too: see below")]
        let builder = reqwest::blocking::Client::builder().no_proxy().timeout(export_timeout());
        proxies.into_iter().fold(builder, reqwest::blocking::ClientBuilder::proxy).build()
    };
    let built = std::thread::spawn(build).join();
    built.map_err(|_| anyhow::anyhow!("the thread that makes the HTTP client of traces panicked"))?.context("traces")
}

#[expect(clippy::disallowed_methods, reason = "the SDK takes them from the environment, whatever our settings say")]
fn export_timeout() -> Duration {
    let set =
        |variable| env::var(variable).ok().and_then(|value: String| value.parse().ok()).map(Duration::from_millis);
    let set = set("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT").or_else(|| set("OTEL_EXPORTER_OTLP_TIMEOUT"));
    set.unwrap_or(EXPORT_TIMEOUT)
}

/// The collector's base address is set, as the specification has it; traces have a path of their own below it.
fn traces_url(endpoint: &str) -> String {
    let base = endpoint.trim_end_matches('/');
    if base.ends_with(TRACES_PATH) { base.to_owned() } else { format!("{base}{TRACES_PATH}") }
}

fn sampler(head: HeadSampler) -> Sampler {
    let HeadSampler { parent_based, per_million } = head;
    let root = match per_million {
        HeadSampler::ALL => Sampler::AlwaysOn,
        0 => Sampler::AlwaysOff,
        part => Sampler::TraceIdRatioBased(f64::from(part) / MILLION),
    };
    if parent_based { Sampler::ParentBased(Box::new(root)) } else { root }
}

/// True if one of OpenTelemetry's own variables is set: the SDK reads it itself.
#[expect(clippy::disallowed_methods, reason = "the SDK takes them from the environment, whatever our settings say")]
fn is_set(variable: &str) -> bool {
    env::var_os(variable).is_some()
}

/// OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES add to it, and name the service differently.
fn resource(service: &str, instance: &str) -> Resource {
    let mut resource = Resource::builder();
    if !is_set("OTEL_SERVICE_NAME") {
        resource = resource.with_service_name(service.to_owned());
    }
    let own = [
        KeyValue::new("service.instance.id", instance.to_owned()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ];
    resource.with_attributes(own).build()
}

fn batches(exporter: ReportingExporter) -> BatchSpanProcessor {
    let mut config = BatchConfigBuilder::default();
    // Set here, they would beat the environment.
    if !is_set("OTEL_BSP_MAX_QUEUE_SIZE") {
        config = config.with_max_queue_size(QUEUE_SPANS_MAX);
    }
    if !is_set("OTEL_BSP_SCHEDULE_DELAY") {
        config = config.with_scheduled_delay(BATCH_DELAY);
    }
    BatchSpanProcessor::builder(exporter).with_batch_config(config.build()).build()
}

/// Counts exported and lost spans, and logs once per change whether the collector accepts them.
#[derive(Debug)]
struct ReportingExporter {
    inner: opentelemetry_otlp::SpanExporter,
    endpoint: String,
    failing: AtomicBool,
}

impl SpanExporter for ReportingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let outcome = self.inner.export(batch).await;
        let endpoint = &self.endpoint;
        match &outcome {
            Ok(()) => {
                metrics::counter!("meanwhile_spans_total", "outcome" => "exported").increment(spans);
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(endpoint, "the collector accepts traces again");
                }
            }
            Err(error) => {
                metrics::counter!("meanwhile_spans_total", "outcome" => "lost").increment(spans);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    let error = error.to_string();
                    tracing::warn!(
                        endpoint,
                        error,
                        "the collector does not accept traces (OTLP over HTTP, usually port 4318); retrying"
                    );
                }
            }
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_go_below_the_collectors_address() {
        assert_eq!(traces_url("http://localhost:4318"), "http://localhost:4318/v1/traces");
        assert_eq!(traces_url("http://localhost:4318/"), "http://localhost:4318/v1/traces");
        assert_eq!(traces_url("https://c.example/otlp/v1/traces"), "https://c.example/otlp/v1/traces");
    }

    #[test]
    fn without_an_endpoint_there_is_no_export() {
        assert!(start(&TraceSettings::default(), "meanwhile", "local").unwrap().is_none());
    }

    #[test]
    fn head_sampling_is_what_the_setting_says() {
        let named = |parent_based, per_million| format!("{:?}", sampler(HeadSampler { parent_based, per_million }));
        assert_eq!(named(true, HeadSampler::ALL), "ParentBased(AlwaysOn)");
        assert_eq!(named(true, 250_000), "ParentBased(TraceIdRatioBased(0.25))");
        assert_eq!(named(false, 0), "AlwaysOff");
    }
}
