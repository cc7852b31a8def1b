//! The trigger of a flow (`on`): what starts its jobs beside requests and commands.

use serde_json::{Value, json};

use super::Definition;
use super::schedule::Schedule;
use crate::expression::{Evaluation, Scope, Template};

/// The cause of a flow's jobs beside requests and commands.
#[derive(Debug)]
pub enum Trigger {
    /// A signed request of another service.
    Webhook(Webhook),
    /// The clock.
    Schedule(Schedule),
    /// Records of a topic that is not Meanwhile's.
    Topic(Topic),
}

/// Signed requests that start jobs.
#[derive(Debug)]
pub struct Webhook {
    pub verify: Scheme,
    /// The names of the secrets of which one has signed: `secrets.*` of the process that receives.
    pub secrets: Vec<String>,
    /// The header of the signature; of `hmac` only.
    pub signature: String,
    /// The longest time between the signature and now; none where the scheme signs no time.
    pub tolerance_ms: Option<u64>,
    /// The headers that the input has beside the body, in lower case; none: the input is the body.
    pub headers: Vec<String>,
    pub picks: Picks,
}

/// The scheme of a webhook: its signature, and the place of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Standard Webhooks 1.0.0.
    Standard,
    Github,
    Stripe,
    Slack,
    /// HMAC-SHA256 of the body, in a header.
    Hmac,
}

impl Scheme {
    pub const ALL: [Self; 5] = [Self::Standard, Self::Github, Self::Stripe, Self::Slack, Self::Hmac];

    /// The word in flow files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Github => "github",
            Self::Stripe => "stripe",
            Self::Slack => "slack",
            Self::Hmac => "hmac",
        }
    }

    /// True if the time of the signature is signed, too.
    pub const fn signs_time(self) -> bool {
        match self {
            Self::Standard | Self::Stripe | Self::Slack => true,
            Self::Github | Self::Hmac => false,
        }
    }
}

/// A topic whose records start jobs.
#[derive(Debug)]
pub struct Topic {
    pub name: String,
    pub format: Format,
    pub from: ReadFrom,
    pub picks: Picks,
}

/// The form of a topic's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    /// Avro in Confluent's framing, by the registry.
    Avro,
}

/// Where a topic is read from that was never read before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// Records that are newer than the application of the flow.
    Applied,
    Beginning,
}

/// The choice of inputs that start jobs, and the ids by which some are the same.
#[derive(Default)]
pub struct Picks {
    pub(super) filter: Option<Template>,
    pub(super) id: Option<Template>,
}

impl std::fmt::Debug for Picks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Picks").finish_non_exhaustive()
    }
}

impl Picks {
    /// True if this input is to start a job.
    ///
    /// # Errors
    /// The filter cannot be evaluated over this input, for a person.
    pub fn takes(&self, input: &Value) -> Result<bool, String> {
        let Some(filter) = &self.filter else { return Ok(true) };
        match filter.render(&over(input)) {
            Ok(Value::Bool(takes)) => Ok(takes),
            Ok(other) => Err(format!("`filter` is neither true nor false, but {other}")),
            Err(error) => Err(format!("`filter`: {error}")),
        }
    }

    /// The id that all repetitions of this input have, where the flow says one.
    ///
    /// # Errors
    /// It cannot be had from this input, for a person.
    pub fn id(&self, input: &Value) -> Result<Option<String>, String> {
        let id = self.id.as_ref().map(|id| id.render_plain(&over(input)));
        id.transpose().map_err(|error| format!("`id`: {error}"))
    }
}

fn over(input: &Value) -> Evaluation<'_> {
    Evaluation::new(Scope { input, slip: None, step: None, env: None, more: &[] })
}

impl Webhook {
    /// The input of a job: the body, with the headers beside it where the flow names some. `header` finds one by name.
    pub fn input(&self, body: Value, header: impl Fn(&str) -> Option<String>) -> Value {
        if self.headers.is_empty() {
            return body;
        }
        let named = |name: &String| Some((name.clone(), Value::String(header(name)?)));
        let headers: serde_json::Map<_, _> = self.headers.iter().filter_map(named).collect();
        json!({ "headers": headers, "body": body })
    }
}

impl Definition {
    /// The cause of its jobs beside requests and commands.
    pub fn trigger(&self) -> Option<&Trigger> {
        self.0.trigger.as_ref()
    }

    /// The input of a job that its schedule starts, as an example; none without a schedule.
    pub fn scheduled_input(&self) -> Option<Value> {
        self.trigger()?.schedule()?.sample()
    }
}

impl Trigger {
    /// The webhook that starts jobs.
    pub const fn webhook(&self) -> Option<&Webhook> {
        match self {
            Self::Webhook(webhook) => Some(webhook),
            Self::Schedule(_) | Self::Topic(_) => None,
        }
    }

    /// The schedule.
    pub const fn schedule(&self) -> Option<&Schedule> {
        match self {
            Self::Schedule(schedule) => Some(schedule),
            Self::Webhook(_) | Self::Topic(_) => None,
        }
    }

    /// The topic.
    pub const fn topic(&self) -> Option<&Topic> {
        match self {
            Self::Topic(topic) => Some(topic),
            Self::Webhook(_) | Self::Schedule(_) => None,
        }
    }
}
