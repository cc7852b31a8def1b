//! Steps whose answer only accepts the work: they end by a callback, or by a poll.

use crate::expression::{Template, UrlTemplate};

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
    pub(crate) url: UrlTemplate,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, Template)>,
    /// The shortest pause before the next look, in milliseconds.
    pub every_ms: u64,
    /// The condition, over `response`.
    pub(crate) until: Template,
    /// The longest time, in milliseconds, counted from the acceptance of the work.
    pub timeout_ms: u64,
}
