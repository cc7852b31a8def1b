//! From a URL to the store behind it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{HttpClient, HttpConnector};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

/// The time for connecting, and the longest pause in an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Requests that fail are repeated at once, but not for long: steps are retried, callers are told to come back.
const RETRIES_MAX: usize = 2;
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes our own clients for a store, so that they follow the one rule for proxies.
#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        service_kit::tls::install_ring();
        let failed = |source| object_store::Error::Generic { store: "client", source };
        let builder = proxies::client_builder().map_err(|error| failed(error.into()))?;
        let client = builder.connect_timeout(CONNECT_TIMEOUT).read_timeout(PAUSE_MAX).tcp_nodelay(true).build();
        Ok(HttpClient::new(client.map_err(|error| failed(error.into()))?))
    }
}

/// The store, and the prefix of all that is ours in it.
pub(crate) fn connect(url: &str, options: &[(String, String)]) -> anyhow::Result<(Arc<dyn ObjectStore>, Path)> {
    let parsed = Url::parse(url).context("`documents.url` is no URL")?;
    let (scheme, prefix) = ObjectStoreScheme::parse(&parsed).context("`documents.url` names no store")?;
    let retry = RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
    // Options that another kind of store has are passed over, as the environment holds all kinds.
    macro_rules! store {
        ($builder:ty) => {{
            let known = options
                .iter()
                .filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value.clone())));
            let named = <$builder>::new().with_url(url).with_retry(retry).with_http_connector(Connector);
            let built = known.fold(named, |builder, (key, value)| builder.with_config(key, value)).build();
            Arc::new(built.context("the settings of the store of documents")?)
        }};
    }
    let store: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::AmazonS3 => store!(AmazonS3Builder),
        ObjectStoreScheme::GoogleCloudStorage => store!(GoogleCloudStorageBuilder),
        ObjectStoreScheme::MicrosoftAzure => store!(MicrosoftAzureBuilder),
        ObjectStoreScheme::Local => return folder(&parsed),
        _ => bail!("`documents.url` names no store that is known"),
    };
    Ok((store, prefix))
}

/// A folder, which is made where there is none. It becomes the root, so that links within its path are followed.
fn folder(url: &Url) -> anyhow::Result<(Arc<dyn ObjectStore>, Path)> {
    let Ok(path) = url.to_file_path() else { bail!("`documents.url` names no folder") };
    std::fs::create_dir_all(&path).with_context(|| format!("making the folder of documents {}", path.display()))?;
    let store = LocalFileSystem::new_with_prefix(&path).context("the folder of documents")?;
    Ok((Arc::new(store.with_automatic_cleanup(true).with_fsync(true)), Path::default()))
}
