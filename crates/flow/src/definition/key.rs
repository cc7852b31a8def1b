//! The words of the flow language. `schemas/flow.schema.json` says the same; a test compares them.

/// Keys of a flow.
pub(crate) const FLOW: &[&str] = &[
    "flow",
    "summary",
    "route",
    "input",
    "upload",
    "on",
    "key",
    "deadline",
    "on_failure",
    "priority",
    "sandbox",
    "steps",
    "result",
    "result_ttl",
    "retention",
    "respond",
];
/// Keys of a trigger.
pub(crate) const ON: &[&str] = &["webhook", "cron", "timezone", "missed", "topic", "format", "from", "filter", "id"];
/// Keys of a webhook that starts jobs.
pub(crate) const WEBHOOK: &[&str] = &["verify", "secrets", "signature", "tolerance", "headers", "filter", "id"];
/// Keys of the documents that a flow takes.
pub(crate) const UPLOAD: &[&str] = &["media_types", "max_bytes"];
/// Keys of a route, where it is not only an address.
pub(crate) const ROUTE: &[&str] = &["at", "answer", "hold", "latency_budget", "upstream", "deprecation"];
/// Keys of the end of a route's synchronous form.
pub(crate) const DEPRECATION: &[&str] = &["since", "sunset", "link", "successor", "enforce"];
/// Keys of a step.
pub(crate) const STEP: &[&str] = &[
    "id",
    "http",
    "native",
    "sleep",
    "wait",
    "with",
    "queue",
    "timeout",
    "retry",
    "when",
    "idempotent",
    "auth",
    "verify",
    "deadline",
    "compensate",
    "settle",
    "cancel",
    "callback",
    "poll",
    "downstream",
    "fallback",
    "limits",
    "simulate",
];
/// Keys of a step that rests may have, too, and those of calls themselves.
const NOT_CALL_ONLY: &[&str] = &["id", "http", "native", "sleep", "wait", "queue", "when"];

/// Keys of a step that only calls have.
pub(crate) fn call_only() -> impl Iterator<Item = &'static str> {
    STEP.iter().copied().filter(|key| !NOT_CALL_ONLY.contains(key))
}

/// Keys of a callback.
pub(crate) const CALLBACK: &[&str] = &["timeout"];
/// Keys of a poll.
pub(crate) const POLL: &[&str] = &["url", "headers", "every", "until", "timeout"];
/// Keys of a sleep, where it is not a duration.
pub(crate) const SLEEP: &[&str] = &["until"];
/// Keys of a wait.
pub(crate) const WAIT: &[&str] = &["signal", "schema", "approve", "timeout", "on_timeout"];
/// Keys of an approval.
pub(crate) const APPROVE: &[&str] = &["by"];
/// Words of `on_timeout`; any other one is a step's id.
pub(crate) const ON_TIMEOUT: &[&str] = &["fail", "continue"];
/// Keys of an HTTP action.
pub(crate) const HTTP: &[&str] = &["method", "url", "headers", "body", "fail_on", "retry_on", "expose", "keep_headers"];
/// Keys of the credentials of a step.
pub(crate) const AUTH: &[&str] = &["basic", "bearer", "oauth2"];
/// Keys of a user's credentials.
pub(crate) const AUTH_BASIC: &[&str] = &["username", "password"];
/// Keys of a client of a token endpoint.
pub(crate) const AUTH_OAUTH2: &[&str] =
    &["token_url", "client_id", "client_secret", "scope", "audience", "client_auth"];
/// Places of the credentials of such a client, in its request.
pub(crate) const CLIENT_AUTH: &[&str] = &["basic", POST];
pub(crate) const POST: &str = "post";
/// Keys of the answer that a flow forms.
pub(crate) const RESPOND: &[&str] = &["status", "headers", "body"];
/// Keys of a compensation.
pub(crate) const COMPENSATE: &[&str] = &["http", "native", "with", "auth", "timeout", "retry", "simulate"];
/// Keys of the question whether a step was done.
pub(crate) const VERIFY: &[&str] = &["http", "done_when", "timeout", "retry"];
/// Keys of its request.
pub(crate) const VERIFY_HTTP: &[&str] = &["method", "url", "headers", "retry_on"];
/// Methods of its request: it changes nothing.
pub(crate) const VERIFY_METHODS: &[&str] = &["GET", "HEAD"];
/// Keys of the limits of a downstream.
pub(crate) const LIMITS: &[&str] = &["rate", "in_flight"];
/// Keys of the answer of a simulated call.
pub(crate) const SIMULATE: &[&str] = &["latency", "output", "fail"];
/// Keys of one of its failures.
pub(crate) const FAIL: &[&str] = &["when", "percent", "status", "error", "detail"];
/// Words of a failure without an answer.
pub(crate) const FAIL_ERRORS: &[&str] = &["no-answer", CONNECTION_LOST, NO_CONNECTION];
pub(crate) const CONNECTION_LOST: &str = "connection-lost";
pub(crate) const NO_CONNECTION: &str = "no-connection";
/// Keys of a fallback.
pub(crate) const FALLBACK: &[&str] = &["value", "step"];
/// Keys of a retry policy.
pub(crate) const RETRY: &[&str] = &["attempts", "backoff"];

/// What becomes of a step's call when its job is cancelled meanwhile.
pub(crate) const CANCEL: &[&str] = &[FINISH, ABORT];
pub(crate) const FINISH: &str = "finish";
pub(crate) const ABORT: &str = "abort";

/// Words of the language that this version cannot do yet, wherever they stand.
pub(crate) const RESERVED: &[&str] = &["kafka", "emit", "parallel", "map", "repeatable", "progress", "mode"];

/// Methods of an HTTP action.
pub(crate) const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
/// Methods of a route: a job is started by a request that may have effects.
pub(crate) const ROUTE_METHODS: &[&str] = &["POST", "PUT", "PATCH", "DELETE"];
/// Headers that Meanwhile or the HTTP client sets.
pub(crate) const HEADERS_RESERVED: (&[&str], &str) = (REQUEST_HEADERS, "is set by Meanwhile");
const REQUEST_HEADERS: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "idempotency-key",
    "te",
    "trailer",
    "transfer-encoding",
    "traceparent",
    "tracestate",
    "upgrade",
    "x-correlation-id",
];
/// Headers of answers that no flow forms: those of the connection and of the framing (RFC 9110 section 7.6.1), those
/// that Meanwhile sets on its answers, and those that say something about our origin or the caller's session, which an
/// answer that is stored and given again must not do.
pub(crate) const ANSWER_HEADERS_RESERVED: (&[&str], &str) = (ANSWER_HEADERS, "is not one that a flow can answer with");
const ANSWER_HEADERS: &[&str] = &[
    "accept-ranges",
    "alt-svc",
    "clear-site-data",
    "connection",
    "content-encoding",
    "content-length",
    "content-location",
    "content-range",
    "content-security-policy",
    "date",
    "idempotent-replayed",
    "keep-alive",
    "preference-applied",
    "proxy-authenticate",
    "proxy-connection",
    "service-worker-allowed",
    "set-cookie",
    "strict-transport-security",
    "sunset",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "x-content-type-options",
    "x-correlation-id",
];
/// Headers of its service's answer with which a flow of a single call answers: those that describe the body, or name
/// what was made. All others are about the connection, the service's origin, or the session of its caller, who was not
/// the one that waits here.
pub(crate) const ANSWER_HEADERS_KEPT: &[&str] = &[
    "cache-control",
    "content-disposition",
    "content-language",
    "content-type",
    "deprecation",
    "etag",
    "last-modified",
    "link",
    "location",
];
