//! The settings of TLS at the process's own port.

use serde::Deserialize;

use super::error::ConfigError;
use super::section::{load_shared, wrong_value};
use super::sources::Sources;

/// The oldest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum TlsVersion {
    #[serde(rename = "1.2")]
    V12,
    #[default]
    #[serde(rename = "1.3")]
    V13,
}

/// The section `[tls]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The path of the certificate chain, in PEM; empty: the port speaks plain HTTP.
    pub certificate: String,
    /// The path of its key, in PEM.
    pub key: String,
    pub min_version: TlsVersion,
    /// The path of the authorities whose clients are let in, in PEM; empty: clients need no certificate.
    pub client_authorities: String,
    /// The pause between two looks at these files, in seconds.
    pub look_every_s: u64,
}

impl TlsSettings {
    pub(super) fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let settings: Self = load_shared("tls", sources)?;
        let wrong = |key: &str, expected: &str, found: &str| wrong_value("tls", key, sources, expected, found);
        let pairs = [("certificate", &settings.certificate, "key"), ("key", &settings.key, "certificate")];
        for (set, value, missing) in pairs {
            if !value.is_empty() && (settings.certificate.is_empty() || settings.key.is_empty()) {
                return Err(wrong(missing, &format!("the path of a PEM file, since `tls.{set}` is set"), ""));
            }
        }
        if !settings.client_authorities.is_empty() && !settings.is_on() {
            let expected = "the path of a PEM file, since `tls.client_authorities` is set";
            return Err(wrong("certificate", expected, ""));
        }
        if settings.look_every_s == 0 {
            return Err(wrong("look_every_s", "1 at least", "0"));
        }
        Ok(settings)
    }

    /// True if the port speaks TLS.
    pub fn is_on(&self) -> bool {
        !self.certificate.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<TlsSettings, ConfigError> {
        TlsSettings::load(&Sources::from_env(variables.iter().copied()))
    }

    #[test]
    fn without_a_certificate_there_is_no_tls_and_with_one_it_is_1_3() {
        assert!(!read(&[]).unwrap().is_on());
        let files = [("MEANWHILE__TLS__CERTIFICATE", "/c.pem"), ("MEANWHILE__TLS__KEY", "/k.pem")];
        let settings = read(&files).unwrap();
        assert!(settings.is_on());
        assert_eq!(settings.min_version, TlsVersion::V13);
        let older = read(&[files[0], files[1], ("MEANWHILE__TLS__MIN_VERSION", "1.2")]).unwrap();
        assert_eq!(older.min_version, TlsVersion::V12);
    }

    #[test]
    fn settings_that_do_not_belong_together_are_refused_with_what_is_missing() {
        for (variable, value, said) in [
            ("CERTIFICATE", "/c.pem", "`tls.key`"),
            ("KEY", "/k.pem", "`tls.certificate`"),
            ("CLIENT_AUTHORITIES", "/a.pem", "`tls.certificate`"),
            ("MIN_VERSION", "1.1", "expected `1.2` or `1.3`"),
            ("LOOK_EVERY_S", "0", "1 at least"),
        ] {
            let told = read(&[(&format!("MEANWHILE__TLS__{variable}"), value)]).unwrap_err().to_string();
            assert!(told.contains(said), "{told}");
        }
    }
}
