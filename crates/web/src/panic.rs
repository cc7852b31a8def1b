//! A handler that panics costs its own request only.

use std::any::Any;

use axum::response::{IntoResponse, Response};

use crate::problem::Problem;

/// The answer to a request whose handler panicked. The panic's text goes to the log, never to the caller.
pub(crate) fn answer(cause: Box<dyn Any + Send>) -> Response {
    Problem::internal(anyhow::anyhow!("a handler panicked: {}", panic_message(&*cause))).into_response()
}

fn panic_message(cause: &(dyn Any + Send)) -> &str {
    let text = cause.downcast_ref::<String>().map(String::as_str).or_else(|| cause.downcast_ref::<&str>().copied());
    text.unwrap_or("?")
}
