//! Shutdown by signals: the first one asks, the second one ends the process.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::tasks::spawn_detached;

/// The process's exit code when a second signal cuts the leaving short (128 + SIGINT).
const EXIT_CODE_INTERRUPTED: i32 = 130;

/// A token that the first SIGTERM or SIGINT cancels; a second one ends the process at once. Call it once, in `main`.
///
/// # Errors
/// The system refuses to install the handlers.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let asked = token.clone();
    spawn_detached(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if asked.is_cancelled() {
                tracing::warn!(signal = name, "second signal: leaving at once");
                std::process::exit(EXIT_CODE_INTERRUPTED);
            }
            tracing::info!(signal = name, "finishing what is in flight; a second signal leaves at once");
            asked.cancel();
        }
    });
    Ok(token)
}
