//! The telemetry of a process: log lines, metrics and traces.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry_sdk::trace::SdkTracer;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::Level;
use tracing::subscriber::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::filter::{EnvFilter, FilterFn, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, LogSettings, TraceSettings};
use crate::trace;

mod export;

pub use export::Export;

/// Bucket bounds of all histograms in seconds: from a fast hop to a slow job.
const SECONDS_BUCKETS: [f64; 20] = [
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
    1_800.0, 7_200.0,
];
/// Bucket bounds of all histograms that count things (names that end in `_size` or `_bytes`).
const SIZE_BUCKETS: [f64; 12] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 10_000.0, 100_000.0];
/// Bytes in a page of memory, as `/proc/self/statm` counts them on every platform that we ship for.
const PAGE_BYTES: f64 = 4_096.0;
/// Clock ticks in a second of CPU time in `/proc/self/stat` (USER_HZ, fixed on Linux).
const TICKS_PER_SECOND: f64 = 100.0;
/// Samples are folded into their buckets this often.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Starts logging to standard error: pretty on a terminal, one JSON object a line elsewhere. Later calls do nothing.
///
/// # Errors
/// The level is no filter such as `info` or `info,relay=debug`.
pub fn init(settings: &LogSettings) -> anyhow::Result<()> {
    // The only error is that a test or an embedding program logs already: theirs stays.
    let _ = tracing_subscriber::registry().with(log_layer(settings, std::io::stderr)?).try_init();
    Ok(())
}

/// As [`init`], and exports traces as `service` where an endpoint is set. Call it once, in `main`.
///
/// # Errors
/// As [`init`]; or the endpoint cannot be used.
pub fn init_with_traces(
    log: &LogSettings,
    traces: &TraceSettings,
    service: &str,
    instance: &str,
) -> anyhow::Result<Export> {
    let Some((export, tracer)) = export::start(traces, service, instance)? else {
        return init(log).map(|()| Export::default());
    };
    trace::install(tracer.clone());
    let layers = tracing_subscriber::registry().with(log_layer(log, std::io::stderr)?).with(bridge(tracer));
    let _ = layers.try_init();
    Ok(export)
}

/// The log, as a layer with a filter of its own.
fn log_layer<S, W>(settings: &LogSettings, writer: W) -> anyhow::Result<Box<dyn Layer<S> + Send + Sync>>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&settings.level).with_context(|| {
        format!("log level `{}`: expected one such as `info` or `info,relay=debug`", settings.level)
    })?;
    let terminal = std::io::stderr().is_terminal();
    let pretty = match settings.format {
        LogFormat::Auto => terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let log = tracing_subscriber::fmt::layer().with_writer(writer);
    Ok(if pretty {
        log.with_ansi(terminal).with_filter(filter).boxed()
    } else {
        log.json().flatten_event(true).with_current_span(true).with_span_list(false).with_filter(filter).boxed()
    })
}

/// Takes over the spans that other code makes with the `tracing` macros, such as native steps: from info on, without
/// their log lines. Ours are made by [`trace`] itself.
pub(crate) fn bridge<S>(tracer: SdkTracer) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let spans: FilterFn = filter_fn(|metadata| metadata.is_span() && *metadata.level() <= Level::INFO);
    OpenTelemetryLayer::new(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(spans)
}

/// The metrics of this process, to be rendered in Prometheus' text format.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Metrics")
    }
}

impl Metrics {
    /// Makes this process's recorder the one that the `metrics` macros write to; later calls return the same one.
    ///
    /// # Errors
    /// Another recorder is installed already.
    pub fn install() -> anyhow::Result<Self> {
        static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
        let mut installed = INSTALLED.lock();
        if let Some(handle) = installed.as_ref() {
            return Ok(Self(handle.clone()));
        }
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)?
            .set_buckets_for_metric(Matcher::Suffix("_size".to_owned()), &SIZE_BUCKETS)?
            .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &SIZE_BUCKETS)?
            .install_recorder()
            .context("another metrics recorder is installed")?;
        metrics::describe_gauge!("process_resident_memory_bytes", "Memory of this process that is in RAM");
        metrics::describe_gauge!("process_cpu_seconds_total", "CPU time that this process used, user and system");
        Ok(Self(installed.insert(handle).clone()))
    }

    /// Everything measured so far, with this process's memory and CPU time as of now.
    pub fn render(&self) -> String {
        if let Some(bytes) = resident_bytes() {
            metrics::gauge!("process_resident_memory_bytes").set(bytes);
        }
        if let Some(seconds) = cpu_seconds() {
            metrics::gauge!("process_cpu_seconds_total").set(seconds);
        }
        self.0.render()
    }

    /// Folds samples into their buckets every few seconds until shutdown: else they pile up when nobody scrapes. Run it
    /// once in each process.
    ///
    /// # Errors
    /// None; the shape is that of [`crate::tasks::Tasks::spawn`].
    pub async fn upkeep(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        while shutdown.run_until_cancelled(tokio::time::sleep(UPKEEP_INTERVAL)).await.is_some() {
            self.0.run_upkeep();
        }
        Ok(())
    }
}

fn resident_bytes() -> Option<f64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split_ascii_whitespace().nth(1)?.parse::<f64>().ok()? * PAGE_BYTES)
}

fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name (field 2) may hold blanks: count from its closing bracket. Fields 14 and 15 are utime and
    // stime.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_rendered_with_buckets() {
        Metrics::install().unwrap();
        metrics::histogram!("test_wait_seconds").record(0.3);
        metrics::counter!("test_jobs_total", "flow" => "order").increment(2);
        let text = Metrics::install().unwrap().render();
        assert!(text.contains("test_wait_seconds_bucket{le=\"0.35\"} 1"), "{text}");
        assert!(text.contains("test_jobs_total{flow=\"order\"} 2"), "{text}");
        assert!(text.contains("process_cpu_seconds_total"), "{text}");
    }

    #[test]
    fn a_level_that_is_none_is_said() {
        let settings = LogSettings { level: "info,relay=loud".to_owned(), format: LogFormat::Json };
        assert!(init(&settings).unwrap_err().to_string().contains("info,relay=loud"));
    }
}
