//! The flags of a flow: what operators change at run time about its own address. They stand over what the flow says.
//!
//! Two things are decided apart: whether the old service answers a request or a job does ([`Rules::execution`]), and
//! the form of the answer ([`Rules::form`]). Both are pure, so all instances decide alike.

use sha2::{Digest, Sha256};

use crate::definition::{Answers, Definition, Deprecation, Terms, limit};

mod read;
#[cfg(test)]
mod tests;

/// All requests, in basis points.
pub const ALL_BASIS_POINTS: u32 = 10_000;
/// A job may be expected to take so long where the answer is to be its outcome, unless the flow or its flags say
/// otherwise.
pub const LATENCY_BUDGET_MS_DEFAULT: u64 = 2_000;
/// Entries of one list of names.
pub const NAMES_MAX: usize = 1_000;
/// Bytes of a name, and of the value that decides about a request.
pub const NAME_BYTES_MAX: usize = 256;
/// Bytes of the document.
pub const DOCUMENT_BYTES_MAX: usize = 64 * 1024;

/// The value of a request by which it is decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum By {
    /// The ordering key; of a flow without one the idempotency key, else each request stands for itself.
    #[default]
    Key,
    /// The tenant.
    Tenant,
    /// A header, by its name in lower case.
    Header(String),
}

/// The part of the requests that become jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durable {
    /// So many in ten thousand.
    pub basis_points: u32,
    /// The value that decides.
    pub by: By,
    /// Values that always become jobs.
    pub allow: Vec<String>,
    /// Values that never become jobs. It wins over `allow`.
    pub deny: Vec<String>,
}

impl Durable {
    const fn of_none(basis_points: u32) -> Self {
        Self { basis_points, by: By::Key, allow: Vec::new(), deny: Vec::new() }
    }
}

/// The flags of a flow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// The part of the requests that become jobs.
    pub durable: Option<Durable>,
    /// The terms that stand over the flow's.
    pub terms: Terms,
    /// Callers that understand 202 without asking for it.
    pub async_clients: Vec<String>,
}

/// The one that executes a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execution {
    /// The old service, through a proxy.
    Proxy,
    /// A job.
    Durable,
}

/// The form in which a job's request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// 202, at once or after the wait that the caller prefers.
    AsAsked,
    /// The outcome if it comes within so many milliseconds, else 202.
    Within(u64),
    /// The outcome, or 504 after so many milliseconds: never 202.
    Owed(u64),
}

/// A request, as far as the form of its answer depends on it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asking<'a> {
    /// `Prefer: respond-async`.
    pub respond_async: bool,
    /// `Prefer: wait=N`.
    pub waits: bool,
    /// The name of the caller.
    pub caller: &'a str,
    /// The time that a job takes at present, its queue included, as far as is known.
    pub expected_ms: Option<f64>,
}

const NONE: &Durable = &Durable::of_none(0);
const ALL: &Durable = &Durable::of_none(ALL_BASIS_POINTS);

/// What holds for requests to a flow's own address: its flags over what it says itself.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    flow: &'a str,
    has_upstream: bool,
    flags: &'a Flags,
    terms: &'a Terms,
}

impl<'a> Rules<'a> {
    /// The rules of a flow under these flags.
    pub fn of(flow: &'a Definition, flags: &'a Flags) -> Self {
        Self { flow: flow.name(), has_upstream: flow.has_upstream(), flags, terms: flow.terms() }
    }

    /// The part of the requests that become jobs: without flags none where there is an old service, and else all.
    pub fn durable(&self) -> &'a Durable {
        match (&self.flags.durable, self.has_upstream) {
            (_, false) => ALL,
            (Some(durable), true) => durable,
            (None, true) => NONE,
        }
    }

    /// True if the execution depends on the request's value.
    pub fn depends_on_value(&self) -> bool {
        let Durable { basis_points, allow, deny, .. } = self.durable();
        (1..ALL_BASIS_POINTS).contains(basis_points) || !allow.is_empty() || !deny.is_empty()
    }

    /// The one that executes a request with this value. A request without one becomes a job only where all do.
    pub fn execution(&self, value: Option<&str>) -> Execution {
        let Durable { basis_points, allow, deny, .. } = self.durable();
        let is_in = |names: &[String]| value.is_some_and(|value| names.iter().any(|name| name == value));
        let is_durable = match value {
            _ if is_in(deny) => false,
            _ if is_in(allow) => true,
            Some(value) => place(self.flow, value) < *basis_points,
            None => *basis_points == ALL_BASIS_POINTS,
        };
        if is_durable { Execution::Durable } else { Execution::Proxy }
    }

    /// The form of the answer where a job executes the request.
    pub fn form(&self, asking: Asking<'_>) -> Form {
        let allows_async =
            asking.respond_async || asking.waits || self.flags.async_clients.iter().any(|name| name == asking.caller);
        let is_short = asking.expected_ms.is_none_or(|ms| ms <= self.latency_budget_ms() as f64);
        match self.answers() {
            Answers::Async => Form::AsAsked,
            Answers::Sync | Answers::Auto if !allows_async => Form::Owed(self.hold_ms()),
            Answers::Sync => Form::AsAsked,
            // Its own word takes the budget's place.
            Answers::Auto if asking.waits => Form::AsAsked,
            Answers::Auto if is_short => Form::Within(self.latency_budget_ms()),
            Answers::Auto => Form::AsAsked,
        }
    }

    /// The form of answers. Callers of an old service know no other than its own.
    pub fn answers(&self) -> Answers {
        let of_old = if self.has_upstream { Answers::Sync } else { Answers::Async };
        self.flags.terms.answer.or(self.terms.answer).unwrap_or(of_old)
    }

    /// The longest time that a caller waits for the beginning of a synchronous answer.
    pub fn hold_ms(&self) -> u64 {
        self.flags.terms.hold_ms.or(self.terms.hold_ms).unwrap_or(limit::TIMEOUT_MS_DEFAULT)
    }

    fn latency_budget_ms(&self) -> u64 {
        let said = self.flags.terms.latency_budget_ms.or(self.terms.latency_budget_ms);
        said.unwrap_or(LATENCY_BUDGET_MS_DEFAULT)
    }

    /// The end of the synchronous form.
    pub fn deprecation(&self) -> Option<&'a Deprecation> {
        self.flags.terms.deprecation.as_ref().or(self.terms.deprecation.as_ref())
    }
}

/// The place of a value among all values, in basis points: the same at every time and on every instance, so a value
/// that is in at 25 % is in at 100 %.
fn place(flow: &str, value: &str) -> u32 {
    let digest = Sha256::new().chain_update(flow).chain_update(b"\0").chain_update(value).finalize();
    let number = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    (number % u64::from(ALL_BASIS_POINTS)) as u32
}
