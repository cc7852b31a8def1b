//! Asks each request who its caller is, where that is wanted, and notes what it changes.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use web::context::RequestContext;

use crate::audit;
use crate::auth::is_api_key;
use crate::state::Api;

/// Middleware: the caller by its credential, or the problem 401; what it changes goes into the audit log. Where no
/// credentials are asked for, whoever is there stays the caller that the frame has put there.
pub(crate) async fn admit(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    if api.auth.is_required {
        let client = request.extensions().get::<RequestContext>().and_then(|context| context.client);
        let (caller, credential) = match api.auth.credential(request.headers(), client, api.clock.now_ms()).await {
            Ok(known) => known,
            Err(problem) => return problem.into_response(),
        };
        if let Some(context) = request.extensions_mut().get_mut::<RequestContext>() {
            (context.caller, context.credential) = (caller, Some(credential));
        }
        // Services behind this one have no use for a key of ours, and are not to have it.
        if is_api_key(request.headers()) {
            request.headers_mut().remove(header::AUTHORIZATION);
        }
    }
    // One middleware for both, since each costs a request several allocations.
    audit::note(&api, request, |request| next.run(request)).await
}
