//! The catalogue of all problems.

use axum::http::StatusCode;

/// One row of the catalogue.
#[derive(Debug)]
pub struct Entry {
    /// Its variant.
    pub kind: Kind,
    /// Its name in the type URI, `/problems/{name}`.
    pub name: &'static str,
    /// The HTTP status that it usually has.
    pub status: u16,
    /// A few words, the same for every occurrence.
    pub title: &'static str,
    /// Advice on the next step.
    pub remediation: &'static str,
}

impl Entry {
    /// The status as a type.
    pub fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

macro_rules! catalogue {
    ($($kind:ident $status:literal $name:literal $title:literal $remediation:literal)*) => {
        /// A problem's kind: the variants are the names of the catalogue.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind {
            $(#[doc = concat!($status, ": ", $title)] $kind,)*
        }

        /// Every problem, in the order of [`Kind`].
        pub static CATALOGUE: &[Entry] = &[
            $(Entry { kind: Kind::$kind, name: $name, status: $status, title: $title, remediation: $remediation },)*
        ];
    };
}

catalogue! {
    // Problems of requests that cannot be understood.
    BadRequest 400 "bad-request" "The request is malformed"
        "Correct the request as the detail says and send it again."
    InvalidJson 400 "invalid-json" "The body is not JSON"
        "Correct the body at the line and column given and send it again."
    IdempotencyKeyMissing 400 "idempotency-key-missing" "This route needs an Idempotency-Key"
        "Send an `Idempotency-Key` header with a value of your own for this work, the same on every repetition."
    InvalidIdempotencyKey 400 "invalid-idempotency-key" "The Idempotency-Key cannot be used"
        "Send a quoted string of printable ASCII characters, such as \"8e03978e-40d5-43dd-bc93-6894a57f9324\"."
    Unauthorized 401 "unauthorized" "Credentials are missing or not valid"
        "Send `Authorization: Bearer` with an API key or a token (the command line: MEANWHILE_API_KEY)."
    BadSignature 401 "bad-signature" "The webhook is not signed as its flow asks for"
        "Sign the body byte for byte with one of the flow's secrets, and keep the clocks right."
    Forbidden 403 "forbidden" "The credentials do not allow this"
        "Use credentials with the scope that the detail names."
    // Problems of requests for something that does not exist, or not in this form.
    NotFound 404 "not-found" "There is nothing at this address"
        "Check the path. `GET /openapi.json` lists what there is."
    UnknownFlow 404 "unknown-flow" "There is no flow of this name"
        "Check the name against `GET /v1/flows`, or apply the flow with `meanwhile flows apply`."
    UnknownFlagsVersion 404 "unknown-flags-version" "The flow's flags have no such version"
        "Check the version against `GET /v1/flags/{flow}/history`."
    UnknownJob 404 "unknown-job" "There is no job with this id"
        "Check the id. Jobs are forgotten after their retention time."
    UnknownDeadLetter 404 "unknown-dead-letter" "There is no dead letter with this id"
        "Check the id against `GET /v1/dead-letters`. Dead letters are forgotten after their retention time."
    UnknownEndpoint 404 "unknown-endpoint" "There is no webhook endpoint with this id"
        "Check the id against `GET /v1/webhooks/endpoints`."
    UnknownDelivery 404 "unknown-delivery" "There is no webhook delivery with this id"
        "Check the id against `GET /v1/webhooks/deliveries`. Deliveries are forgotten after their retention time."
    UnknownKey 404 "unknown-key" "There is no API key with this id"
        "Check the id against `GET /v1/keys`. Keys that have ended are forgotten after a while."
    NoPublicKey 404 "no-public-key" "The endpoint's signatures have no public key"
        "Register an endpoint with `kind: ed25519`, whose signatures anybody can check."
    UnknownSignal 404 "unknown-signal" "The job's flow waits for no such signal"
        "Check the name: the detail lists the signals of the flow."
    UnknownCallback 404 "unknown-callback" "There is no such callback"
        "Call exactly the address that the step's request gave, and as long as the job runs."
    UnknownProgress 404 "unknown-progress" "There is no such address for progress"
        "Use exactly the address that the step's request gave, and as long as the job runs."
    NotFinished 404 "not-finished" "The job has no result yet"
        "Ask again after the time in `Retry-After`."
    MethodNotAllowed 405 "method-not-allowed" "This address does not take this method"
        "Use one of the methods in the `Allow` header."
    // Problems of requests that conflict with a present state or limit.
    RequestTimeout 408 "request-timeout" "The request did not arrive in time"
        "Send it again; with the same Idempotency-Key it stays one job."
    IdempotencyKeyInUse 409 "idempotency-key-in-use" "A request with this Idempotency-Key is being accepted right now"
        "Send the same request again after the time in `Retry-After`: it will get the job of the first one."
    StillRunning 409 "still-running" "The job has not ended"
        "It goes on by itself. Retry the job once it waits for another attempt, is parked, or has ended."
    OutcomeKnown 409 "outcome-known" "The job waits for nobody's word on how a step has ended"
        "Only a job that is parked at a step of unknown outcome takes one. Its status tells what it waits for."
    AlreadyFinished 409 "already-finished" "The job has ended"
        "A final state stays. `POST /v1/jobs/{id}/retry` starts the work again as another job."
    AlreadySettled 409 "already-settled" "The dead letter had another end"
        "`GET /v1/dead-letters/{id}` tells what was done about it, and when."
    RedriveLimit 409 "redrive-limit" "It comes back each time"
        "Mend the cause. A record can be sent with another `value` or `key`; `force` sends it once more as it is."
    TooManyEndpoints 409 "too-many-endpoints" "There is no room for another webhook endpoint"
        "Delete endpoints that are no longer needed, or let one endpoint hear of more events."
    TooManyKeys 409 "too-many-keys" "There is no room for another API key"
        "Revoke keys that are no longer needed, or give keys an end (`expires_in`)."
    Cancelled 409 "cancelled" "The job was cancelled"
        "Completed steps are undone. Submit a new job if you want it after all."
    Gone 410 "gone" "This is no longer kept"
        "Results are kept for as long as the operator says (`keep_jobs_d`). Submit a new job to get the result again."
    PreconditionFailed 412 "precondition-failed" "The state has changed since it was read"
        "Read it again, decide anew, and send the request with its present `ETag` in `If-Match`."
    FormRetired 410 "form-retired" "The synchronous form of this address is no longer served"
        "Send `Prefer: respond-async` and follow the job, as the page in `Link` says."
    PayloadTooLarge 413 "payload-too-large" "The body is larger than this route takes"
        "Send a smaller body; put large data elsewhere and send its address."
    UriTooLong 414 "uri-too-long" "The URL is too long"
        "Send a shorter URL; data belongs into the body."
    UnsupportedMediaType 415 "unsupported-media-type" "The body's media type is not taken here"
        "Send JSON with `Content-Type: application/json`."
    RangeNotSatisfiable 416 "range-not-satisfiable" "No byte of the result lies within the range"
        "Ask for a range within the length that `Content-Range` names, or without `Range` for all of it."
    SchemaViolation 422 "schema-violation" "The value does not match its schema"
        "Correct the values at the JSON pointers in `errors` and send it again."
    UrlRefused 422 "url-refused" "Calls to this URL are not allowed"
        "Give the URL of a receiver on the public internet. The operator can allow others (`webhooks.allow_networks`)."
    BatchNotAccepted 422 "batch-not-accepted" "Nothing of the batch was accepted"
        "Correct the items that `items` names and send the whole batch again, or send it without `atomic`."
    IdempotencyKeyReused 422 "idempotency-key-reused" "This Idempotency-Key was used for another request"
        "Use a new key for a new piece of work, or send exactly the first request again to get its job."
    QuotaExceeded 429 "quota-exceeded" "Too many requests"
        "Send fewer requests, or wait for the time in `Retry-After`; `violated-policies` names the limit."
    PreconditionRequired 428 "precondition-required" "A change needs the version that it changes"
        "Read the present version, and send its `ETag` in `If-Match`."
    HeadersTooLarge 431 "headers-too-large" "The request has too many or too large headers"
        "Send fewer or smaller headers."
    // Failures of the job.
    StepFailed 502 "step-failed" "A step of the job failed"
        "`detail` and `step` tell its service's answer. Completed steps are undone. Fix the cause and submit again."
    DeadlineExceeded 504 "deadline-exceeded" "The job did not end before its deadline"
        "Completed steps are undone. Submit it again, or give the flow a longer `deadline`."
    UpgradeRefused 501 "upgrade-refused" "This address changes no protocol"
        "Send the request without `Upgrade`, or send it to the service itself."
    UpstreamFailed 502 "upstream-failed" "The service behind this address gave no answer"
        "`detail` tells whether it may have seen the request. If it may, ask it before you send the request again."
    UpstreamTimeout 504 "upstream-timeout" "The service behind this address did not answer in time"
        "It may have done the work. Ask it before you send the request again."
    AnswerLate 504 "answer-late" "The job has not ended in the time for which this address waits"
        "The job goes on: `links` leads to it. The same request with the same Idempotency-Key waits for it again."
    // Failures of our own.
    Internal 500 "internal" "Something went wrong on our side"
        "Send it again with the same Idempotency-Key. If the problem stays, give the operator the `trace_id`."
    NotReady 503 "not-ready" "Something that this service needs is missing"
        "It recovers by itself once the named dependencies are reachable; see `dependencies`."
    TooManyStreams 503 "too-many-streams" "There is no room for another stream of events"
        "Connect again after the time in `Retry-After`, or ask for pages with `Accept: application/json`."
    TemporaryReducedCapacity 503 "temporary-reduced-capacity" "No new jobs for the moment"
        "Send the same request again, with the same Idempotency-Key, after the time in `Retry-After`."
}

impl Kind {
    /// Its row in the catalogue.
    pub fn entry(self) -> &'static Entry {
        &CATALOGUE[self as usize]
    }

    /// The problem of that name.
    pub fn parse(name: &str) -> Option<Self> {
        CATALOGUE.iter().find(|entry| entry.name == name).map(|entry| entry.kind)
    }

    /// The general problem for a status that came without one.
    pub fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            405 => Self::MethodNotAllowed,
            408 => Self::RequestTimeout,
            410 => Self::Gone,
            412 => Self::PreconditionFailed,
            413 => Self::PayloadTooLarge,
            414 => Self::UriTooLong,
            415 => Self::UnsupportedMediaType,
            416 => Self::RangeNotSatisfiable,
            429 => Self::QuotaExceeded,
            431 => Self::HeadersTooLarge,
            503 => Self::NotReady,
            504 => Self::DeadlineExceeded,
            400..=499 => Self::BadRequest,
            _ => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_entry_can_be_found_and_says_what_to_do() {
        let mut names = HashSet::new();
        for (index, entry) in CATALOGUE.iter().enumerate() {
            assert_eq!(entry.kind as usize, index);
            assert_eq!(Kind::parse(entry.name), Some(entry.kind));
            assert!(names.insert(entry.name), "{} is there twice", entry.name);
            assert!((400..600).contains(&entry.status), "{}", entry.name);
            assert_eq!(entry.status_code().as_u16(), entry.status, "{}", entry.name);
            assert!(entry.name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", entry.name);
            assert!(!entry.title.is_empty() && !entry.title.ends_with('.'), "{}", entry.name);
            assert!(entry.remediation.ends_with('.'), "{}", entry.name);
        }
    }
}
