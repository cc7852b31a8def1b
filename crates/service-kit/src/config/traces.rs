//! The export of traces, set by OpenTelemetry's own variables.

use super::error::ConfigError;
use super::sources::Sources;
use super::top_level::{OTLP_ENDPOINT, OTLP_PROTOCOL, TRACES_SAMPLER, TRACES_SAMPLER_ARG};

/// Ratios are counted in millionths.
const MILLION: f64 = 1_000_000.0;

/// The export of traces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceSettings {
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`: the collector's base address. None: traces are not exported.
    pub endpoint: Option<String>,
    /// `OTEL_TRACES_SAMPLER` and its `_ARG`.
    pub sampler: HeadSampler,
}

/// Decides at the begin of a trace whether it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadSampler {
    /// A caller's own decision is followed.
    pub parent_based: bool,
    /// The count of traces that are kept, of a million.
    pub per_million: u32,
}

impl HeadSampler {
    /// Every trace.
    pub const ALL: u32 = 1_000_000;
}

impl Default for HeadSampler {
    fn default() -> Self {
        Self { parent_based: true, per_million: Self::ALL }
    }
}

impl TraceSettings {
    pub(super) fn load(sources: &Sources) -> Result<Self, ConfigError> {
        OTLP_PROTOCOL.read(sources)?;
        Ok(Self { endpoint: OTLP_ENDPOINT.read(sources)?, sampler: sampler(sources)? })
    }
}

fn sampler(sources: &Sources) -> Result<HeadSampler, ConfigError> {
    let Some(name) = TRACES_SAMPLER.read(sources)? else { return Ok(HeadSampler::default()) };
    let (parent_based, root) = match name.strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, name.as_str()),
    };
    let per_million = match root {
        "always_off" => 0,
        "traceidratio" => ratio(sources)?,
        _ => HeadSampler::ALL,
    };
    Ok(HeadSampler { parent_based, per_million })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to a million")]
fn ratio(sources: &Sources) -> Result<u32, ConfigError> {
    let ratio = TRACES_SAMPLER_ARG.read(sources)?.and_then(|text| text.parse::<f64>().ok());
    Ok(ratio.map_or(HeadSampler::ALL, |ratio| (ratio * MILLION).round() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(env: &[(&str, &str)]) -> Result<TraceSettings, ConfigError> {
        TraceSettings::load(&Sources::from_env(env.iter().copied()))
    }

    #[test]
    fn traces_are_exported_only_where_an_endpoint_is_set_and_all_of_them_unless_told() {
        assert_eq!(read(&[]).unwrap(), TraceSettings::default());
        let settings = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")]).unwrap();
        assert_eq!(settings.endpoint.as_deref(), Some("http://collector:4318"));
        assert_eq!(settings.sampler, HeadSampler { parent_based: true, per_million: 1_000_000 });
    }

    #[test]
    fn the_samplers_of_the_specification_are_understood() {
        let sampler =
            |name, arg| read(&[("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", arg)]).unwrap().sampler;
        let is = |parent_based, per_million| HeadSampler { parent_based, per_million };
        assert_eq!(sampler("parentbased_traceidratio", "0.1"), is(true, 100_000));
        assert_eq!(sampler("traceidratio", ""), is(false, 1_000_000));
        assert_eq!(sampler("always_off", ""), is(false, 0));
    }

    #[test]
    fn what_is_wrong_names_itself_and_what_would_do() {
        let told = |env: &[(&str, &str)]| read(env).unwrap_err().to_string();
        assert_eq!(
            told(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]),
            "`otlp_protocol` in OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf, found `grpc`"
        );
        assert_eq!(
            told(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")]),
            "`otlp_endpoint` in OTEL_EXPORTER_OTLP_ENDPOINT: expected a URL such as http://localhost:4318, \
             found `collector:4318`"
        );
        assert!(told(&[("OTEL_TRACES_SAMPLER", "most")]).contains("expected one of always_on, always_off,"));
        let much = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "10%")];
        assert!(told(&much).contains("OTEL_TRACES_SAMPLER_ARG: expected a number from 0 to 1, found `10%`"));
    }
}
