//! The worker binary of the benchmark, built on the library as a team's own would be: one native step that does
//! nothing.

use serde_json::{Value, json};
use workers::{NativeCall, NativeError, Workers};

/// Works until SIGTERM.
pub(crate) async fn serve() -> anyhow::Result<()> {
    Workers::builder().native("no_op", no_op).build().serve().await
}

pub(crate) async fn no_op(call: NativeCall) -> Result<Value, NativeError> {
    Ok(json!({ "step": call.step, "ok": true }))
}
