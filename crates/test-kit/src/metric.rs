//! Measurements of the services in this very process. Other tests of the process write to the same metrics: look for
//! labels that are nobody else's, or for a rise.

use service_kit::telemetry::Metrics;

/// Switches the metrics of this process on. Call it before what is to be measured.
///
/// # Panics
/// When something else records the metrics of this process.
pub fn measure() -> Metrics {
    Metrics::install().expect("our own recorder")
}

/// The value of a series as Prometheus' text has it, labels and all (`name{label="value"}`); none when it is not there.
///
/// # Panics
/// As [`measure`].
pub fn metric(series: &str) -> Option<f64> {
    let text = measure().render();
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}
