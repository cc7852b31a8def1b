//! Configuration is a value: a commented default compiled in, then a file, then the environment; read once, in `main`.
//!
//! `default.toml` of a section names every key there is. Other keys are refused, with the nearest known name. A value
//! keeps the type of its default.

mod accepted;
mod auth;
mod callbacks;
mod describe;
mod documents;
mod error;
mod kafka;
mod log;
mod merge;
mod proxy;
mod redact;
mod registry;
mod secret;
mod section;
mod shared;
mod sources;
mod tls;
mod top_level;
mod traces;
mod webhooks;

pub use auth::{AuthMode, AuthSettings};
pub use callbacks::CallbackSettings;
pub use describe::{Setting, describe};
pub use documents::DocumentSettings;
pub use error::ConfigError;
pub use log::{LogFormat, LogSettings};
pub use redact::redact;
pub use registry::RegistrySettings;
pub use section::load;
pub use shared::Shared;
pub use sources::Sources;
pub use tls::{TlsSettings, TlsVersion};
pub use traces::{HeadSampler, TraceSettings};
pub use webhooks::WebhookSettings;

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    const DEFAULT: &str = r#"
# How many slips may be in flight.
slips_in_flight_max = 256
ratio = 0.5
hosts = ["a"]
name = ""

[retry]
attempts = 3
"#;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        slips_in_flight_max: u32,
        ratio: f64,
        hosts: Vec<String>,
        name: String,
        retry: Retry,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Retry {
        attempts: u8,
    }

    fn read(file: &str, env: &[(&str, &str)]) -> Result<Sample, ConfigError> {
        let sources = Sources::from_env(env.iter().copied()).with_file("meanwhile.toml", file)?;
        load("workers", DEFAULT, &sources)
    }

    fn refusal(file: &str, env: &[(&str, &str)]) -> String {
        read(file, env).unwrap_err().to_string()
    }

    #[test]
    fn the_environment_beats_the_file_and_the_file_beats_the_default() {
        let file = "[workers]\nslips_in_flight_max = 10\nratio = 2\n[workers.retry]\nattempts = 5";
        let env = [
            ("MEANWHILE__WORKERS__SLIPS_IN_FLIGHT_MAX", "20"),
            ("MEANWHILE__WORKERS__HOSTS", "b, c"),
            ("MEANWHILE__WORKERS__NAME", "7"),
            ("MEANWHILE__RELAY__NAME", "not ours"),
        ];
        let sample = read(file, &env).unwrap();
        let hosts = vec!["b".to_owned(), "c".to_owned()];
        let retry = Retry { attempts: 5 };
        assert_eq!(sample, Sample { slips_in_flight_max: 20, ratio: 2.0, hosts, name: "7".to_owned(), retry });
    }

    #[test]
    fn an_unknown_key_is_refused_with_where_it_stands_and_the_nearest_known_one() {
        assert_eq!(
            refusal("[workers]\nslips_in_fligth_max = 1", &[]),
            "unknown key `workers.slips_in_fligth_max` in meanwhile.toml; did you mean `slips_in_flight_max`?"
        );
        assert_eq!(
            refusal("", &[("MEANWHILE__WORKERS__RETRY__ATEMPTS", "1")]),
            "unknown key `workers.retry.atempts` in the variable MEANWHILE__WORKERS__RETRY__ATEMPTS; \
             did you mean `attempts`?"
        );
        assert!(
            refusal("[workers]\nxyz = 1", &[]).ends_with("known are: hosts, name, ratio, retry, slips_in_flight_max")
        );
    }

    #[test]
    fn a_value_of_another_type_is_refused_with_the_type_that_was_expected() {
        assert_eq!(
            refusal("", &[("MEANWHILE__WORKERS__RETRY__ATTEMPTS", "many")]),
            "`workers.retry.attempts` in the variable MEANWHILE__WORKERS__RETRY__ATTEMPTS: \
             expected an integer, found `many`"
        );
        assert!(refusal("[workers]\nhosts = 7", &[]).contains("expected an array of strings, found `7`"));
        assert!(refusal("workers = 7", &[]).contains("expected a table"));
        assert!(refusal("", &[("MEANWHILE__WORKERS__RETRY", "x")]).contains("expected a table"));
    }

    #[test]
    fn a_value_out_of_the_range_of_its_setting_is_refused() {
        let two = [("MEANWHILE__WORKERS__SLIPS_IN_FLIGHT_MAX", "7"), ("MEANWHILE__WORKERS__RETRY__ATTEMPTS", "300")];
        assert_eq!(
            refusal("", &two),
            "`workers.retry.attempts` in the variable MEANWHILE__WORKERS__RETRY__ATTEMPTS: \
             expected a whole number from 0 to 255, found `300`"
        );
        assert!(refusal("[workers]\nslips_in_flight_max = -1", &[]).starts_with(
            "`workers.slips_in_flight_max` in meanwhile.toml: expected a whole number from 0 to 4294967295"
        ));
    }

    #[test]
    fn a_name_that_is_none_of_those_known_is_told_with_all_of_them() {
        let sources = Sources::from_env([("MEANWHILE__LOG__FORMAT", "xml")]);
        assert_eq!(
            Shared::load(&sources).unwrap_err().to_string(),
            "`log.format` in the variable MEANWHILE__LOG__FORMAT: \
             expected one of `auto`, `pretty`, `json`, found `xml`"
        );
    }
}
