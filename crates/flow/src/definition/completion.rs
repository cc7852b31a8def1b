//! Steps whose answer only accepts the work: they end by a callback, or by a poll.

use std::sync::Arc;

use super::auth::Auth;
use super::limit::{POLL_ASKED_MS_MIN, POLL_EVERY_MS_DEFAULT};
use crate::expression::{Expression, Template, UrlTemplate};

/// The path of the headers of the answer that accepted the work.
const HEADERS: &str = "response.headers";

/// The headers of an answer that a flow can read, by their names there and on the wire: where accepted work is found.
pub const HEADERS_READ: [(&str, &str); 3] =
    [("location", "location"), ("content_location", "content-location"), ("operation_location", "operation-location")];

/// The end of a step whose 2xx only says that the work was taken.
pub enum Completion {
    /// The service calls back.
    Callback(Callback),
    /// The service is asked again and again.
    Poll(Box<Poll>),
}

/// The service calls `{{ callback.url }}` once it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Callback {
    /// The longest wait for it, in milliseconds.
    pub timeout_ms: u64,
}

/// A resource is read until it says that the work is done.
pub struct Poll {
    pub(crate) url: PollUrl,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, Template)>,
    /// The credentials that go with it.
    pub(crate) auth: Option<Arc<Auth>>,
    /// The shortest pause before the next look, in milliseconds; none: the service says it.
    pub every_ms: Option<u64>,
    /// The condition, over `response`.
    pub(crate) until: Template,
    /// The longest time, in milliseconds, counted from the acceptance of the work.
    pub timeout_ms: u64,
}

/// Where a poll looks.
pub(crate) enum PollUrl {
    /// At a URL that the flow forms.
    Formed(UrlTemplate),
    /// Where the service says, at the origin of the step's own call.
    Link(Expression),
}

impl Poll {
    /// The pause before a look, in milliseconds, where the service asked for `retry_after_ms`.
    pub(crate) fn pause_ms(&self, retry_after_ms: Option<u64>) -> u64 {
        match (self.every_ms, retry_after_ms) {
            (Some(every_ms), asked_ms) => every_ms.max(asked_ms.unwrap_or_default()),
            (None, Some(asked_ms)) => asked_ms.max(POLL_ASKED_MS_MIN),
            (None, None) => POLL_EVERY_MS_DEFAULT,
        }
    }

    /// True if its request reads headers of the answer that accepted the work.
    pub(crate) fn reads_headers(&self) -> bool {
        let of_url: Vec<&Expression> = match &self.url {
            PollUrl::Formed(url) => url.expressions().collect(),
            PollUrl::Link(link) => vec![link],
        };
        let of_headers = self.headers.iter().flat_map(|(_, template)| template.expressions());
        of_url.into_iter().chain(of_headers).flat_map(Expression::paths).any(|path| path.starts_with(HEADERS))
    }
}
