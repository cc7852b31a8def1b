//! `DATABASE_URL` as the replication stream needs it.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use pgwire_replication::{SslMode, TlsConfig};
use url::{Host, Url};

/// The address of Postgres, and the login.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Database {
    /// A host name or address, or the folder of a socket (begins with `/`).
    pub(crate) host: String,
    /// The port, which also names the socket's file.
    pub(crate) port: u16,
    /// The role; it needs REPLICATION.
    pub(crate) user: String,
    /// Its password; empty where there is none.
    pub(crate) password: String,
    /// The database.
    pub(crate) name: String,
    /// TLS, from `sslmode` and `sslrootcert`.
    pub(crate) tls: TlsConfig,
}

/// Keeps the password out of logs.
impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}:{}/{}", self.user, self.host, self.port, self.name)
    }
}

/// The URL is not one. Names the part, never the whole: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("DATABASE_URL: {0}; want postgres://user:password@host:5432/database, or ?host=/socket/folder")]
pub(crate) struct NotADatabaseUrl(String);

impl NotADatabaseUrl {
    fn because(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

impl std::str::FromStr for Database {
    type Err = NotADatabaseUrl;

    fn from_str(url: &str) -> Result<Self, NotADatabaseUrl> {
        let url = Url::parse(url).map_err(|error| NotADatabaseUrl(error.to_string()))?;
        if !["postgres", "postgresql"].contains(&url.scheme()) {
            return Err(NotADatabaseUrl::because("it does not begin with postgres://"));
        }
        let mut database = Self {
            host: match url.host() {
                Some(Host::Ipv6(address)) => address.to_string(),
                _ => decoded(url.host_str().unwrap_or_default())?,
            },
            port: url.port().unwrap_or(5432),
            user: decoded(url.username())?,
            password: decoded(url.password().unwrap_or_default())?,
            name: decoded(url.path().trim_start_matches('/'))?,
            tls: TlsConfig { mode: SslMode::Prefer, ..TlsConfig::default() },
        };
        for (key, value) in url.query_pairs() {
            database.set(&key, value.into_owned())?;
        }
        database.complete()
    }
}

impl Database {
    fn set(&mut self, key: &str, value: String) -> Result<(), NotADatabaseUrl> {
        match key {
            "host" | "hostaddr" => self.host = value,
            "port" => self.port = value.parse().map_err(|_| NotADatabaseUrl::because("the port is not a number"))?,
            "user" => self.user = value,
            "password" => self.password = value,
            "dbname" => self.name = value,
            "sslmode" | "ssl-mode" => {
                self.tls.mode = match value.as_str() {
                    "disable" => SslMode::Disable,
                    "allow" | "prefer" => SslMode::Prefer,
                    "require" => SslMode::Require,
                    "verify-ca" => SslMode::VerifyCa,
                    "verify-full" => SslMode::VerifyFull,
                    _ => return Err(NotADatabaseUrl::because("sslmode is not one of Postgres' modes")),
                }
            }
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => self.tls.ca_pem_path = Some(PathBuf::from(value)),
            "sslcert" | "ssl-cert" => self.tls.client_cert_pem_path = Some(PathBuf::from(value)),
            "sslkey" | "ssl-key" => self.tls.client_key_pem_path = Some(PathBuf::from(value)),
            // Settings of the connection pool (application_name, statement-cache-capacity) mean nothing to a stream.
            _ => {}
        }
        Ok(())
    }

    fn complete(mut self) -> Result<Self, NotADatabaseUrl> {
        if self.host.is_empty() {
            self.host = "localhost".into();
        }
        if self.user.is_empty() {
            return Err(NotADatabaseUrl::because("it names no user"));
        }
        if self.name.is_empty() {
            self.name.clone_from(&self.user);
        }
        if self.host.starts_with('/') {
            self.tls = TlsConfig::disabled();
        }
        Ok(self)
    }
}

fn decoded(text: &str) -> Result<String, NotADatabaseUrl> {
    let decoded = percent_decode_str(text).decode_utf8();
    Ok(decoded.map_err(|_| NotADatabaseUrl::because("an escape is not UTF-8"))?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_urls_are_read() {
        for (url, seen, password) in [
            ("postgres://ada:p%40ss@db:6000/meanwhile", "ada@db:6000/meanwhile", "p@ss"),
            ("postgresql://ada@[::1]:6000/m?sslmode=disable", "ada@::1:6000/m", ""),
            ("postgres:///m?user=ada&host=/run/postgresql&port=7", "ada@/run/postgresql:7/m", ""),
            ("postgres://ada@%2Frun%2Fpostgresql/m", "ada@/run/postgresql:5432/m", ""),
            ("postgres://ada@localhost", "ada@localhost:5432/ada", ""),
            ("postgres:///m?user=ada&password=x&host=/s", "ada@/s:5432/m", "x"),
        ] {
            let database: Database = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((format!("{database:?}").as_str(), database.password.as_str()), (seen, password), "{url}");
        }
    }

    #[test]
    fn a_socket_has_no_tls_and_a_host_prefers_it() {
        let mode = |url: &str| url.parse::<Database>().unwrap().tls.mode;
        assert_eq!(mode("postgres://a@h/m"), SslMode::Prefer);
        assert_eq!(mode("postgres://a@h/m?sslmode=verify-full"), SslMode::VerifyFull);
        assert_eq!(mode("postgres:///m?user=a&host=/s&sslmode=require"), SslMode::Disable);
    }

    #[test]
    fn what_is_not_a_database_url_is_refused_without_repeating_it() {
        for url in
            ["", "mysql://a:secret@h/m", "postgres://a:secret@h:port/m", "postgres://a:secret%ff@h/m", "postgres://h/m"]
        {
            let error = url.parse::<Database>().unwrap_err().to_string();
            assert!(error.contains("postgres://user") && !error.contains("secret"), "{url}: {error}");
        }
    }
}
