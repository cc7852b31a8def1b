//! A small schema registry in memory that speaks Confluent's API, for a laptop.
//!
//! It numbers and returns schemas, as clients and kcat need it. It keeps compatibility levels, but does not check
//! schemas against them: the real registry does, and so do the tests.

mod http;
mod shelf;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves an empty registry on `listener` until shutdown.
pub async fn serve(listener: TcpListener, shutdown: CancellationToken) {
    let serving = axum::serve(listener, http::router());
    if let Some(Err(error)) = shutdown.run_until_cancelled(serving.into_future()).await {
        tracing::error!(%error, "the schema registry ended");
    }
}
