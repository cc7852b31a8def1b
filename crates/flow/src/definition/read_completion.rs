//! From `callback` or `poll` of a step in a document to its [`Completion`].

use super::completion::PollUrl;
use super::limit::{DEADLINE_MS_MAX, POLL_EVERY_MS_MAX, POLL_EVERY_MS_MIN, POLL_TIMEOUT_MS_DEFAULT, SETTLE_MS_MAX};
use super::node::Node;
use super::read_value::{headers, required, template, url};
use super::reader::{Fields, Reader};
use super::visible::{self, Visible};
use super::{Action, Call, Callback, Completion, Poll, key};
use crate::expression::{Template, UrlTemplate};

/// The name under which a request has the URL of its callback.
const CALLBACK_URL: &str = "callback.url";
/// The name under which it has the URL for reports of progress.
pub(super) const PROGRESS_URL: &str = "progress.url";

/// The names that the request of a step sees.
pub(super) fn roots(fields: &Fields<'_>) -> &'static [&'static str] {
    match (fields.get("http"), fields.get("callback")) {
        (_, Some(_)) => visible::CALL_WITH_CALLBACK,
        (Some(_), None) => visible::REQUEST,
        (None, None) => visible::CALL,
    }
}

/// The longest time after which a call may still have its effect: work that was accepted may be done late.
pub(super) fn longest_ms(action: &Action, completion: Option<&Completion>) -> u64 {
    let later_ms = match completion {
        Some(Completion::Callback(callback)) => callback.timeout_ms,
        Some(Completion::Poll(poll)) => poll.timeout_ms,
        None => return action.timeout_ms,
    };
    action.timeout_ms.saturating_add(later_ms).min(SETTLE_MS_MAX)
}

/// The `callback` or `poll` of a step.
pub(super) fn completion(reader: &mut Reader<'_>, fields: &Fields<'_>, sent: &Visible<'_>) -> Option<Completion> {
    let (callback, poll) = (fields.get("callback"), fields.get("poll"));
    for word in ["callback", "poll"] {
        if fields.get(word).is_some() && fields.get("native").is_some() {
            reader.problem(fields.place_of(word), format!("a native step has no `{word}`")).hint =
                Some("it waits by itself; or an `http` step does the work".to_owned());
        }
    }
    match (callback, poll) {
        (Some(_), Some(_)) => {
            reader.problem(fields.place_of("poll"), "a step ends by its `callback` or by its `poll`, not by both");
            None
        }
        (Some(node), None) => self::callback(reader, node).map(Completion::Callback),
        (None, Some(node)) => self::poll(reader, node, sent).map(|poll| Completion::Poll(Box::new(poll))),
        (None, None) => None,
    }
}

fn callback(reader: &mut Reader<'_>, node: &Node) -> Option<Callback> {
    let fields = reader.fields(node, "`callback`", key::CALLBACK)?;
    let node = required(reader, &fields, "`callback`", "timeout")?;
    let timeout_ms = reader.duration_ms(node, "`timeout`", 1..=DEADLINE_MS_MAX)?;
    Some(Callback { timeout_ms })
}

/// Reports a step that waits for a call of a URL that it tells nobody.
pub(super) fn check_told(reader: &mut Reader<'_>, fields: &Fields<'_>, action: &Action) {
    let Call::Http(http) = &action.call else { return };
    if fields.get("callback").is_some() && !http.uses(CALLBACK_URL) {
        reader.problem(fields.place_of("callback"), "the request does not tell where to call back").expected =
            Some("`{{ callback.url }}` in its `url`, `headers` or `body`".to_owned());
    }
}

fn poll(reader: &mut Reader<'_>, node: &Node, sent: &Visible<'_>) -> Option<Poll> {
    let fields = reader.fields(node, "`poll`", key::POLL)?;
    let asked = Visible { roots: visible::POLL, ..*sent };
    let url = required(reader, &fields, "`poll`", "url").and_then(|node| poll_url(reader, node, &asked));
    let headers =
        fields.get("headers").map(|node| headers(reader, node, &asked, key::HEADERS_RESERVED)).unwrap_or_default();
    let every = fields.get("every");
    let every_ms = every.and_then(|node| reader.duration_ms(node, "`every`", POLL_EVERY_MS_MIN..=POLL_EVERY_MS_MAX));
    let judged = Visible { roots: visible::POLLED, ..*sent };
    let until = required(reader, &fields, "`poll`", "until").and_then(|node| {
        let until = template(reader, node, &judged)?;
        if !matches!(until, Template::Expression(_)) {
            reader.problem(node.place, "`until` is not an expression").expected =
                Some("exactly one `{{ }}` that gives true or false, over `response`".to_owned());
        }
        Some(until)
    });
    let timeout = fields.get("timeout");
    let timeout_ms = timeout.and_then(|node| reader.duration_ms(node, "`timeout`", 1..=DEADLINE_MS_MAX));
    let timeout_ms = timeout_ms.unwrap_or(POLL_TIMEOUT_MS_DEFAULT);
    Some(Poll { url: url?, headers, auth: None, every_ms, until: until?, timeout_ms })
}

/// One expression over `response` alone is a link, any other text a URL like that of `http`.
fn poll_url(reader: &mut Reader<'_>, node: &Node, visible: &Visible<'_>) -> Option<PollUrl> {
    let text = reader.text(node, "`url`")?;
    let is_of_response = |path: &str| path.split('.').next() == Some("response");
    if let Ok(Template::Expression(link)) = Template::text(text.trim())
        && link.paths().next().is_some()
        && link.paths().all(is_of_response)
    {
        visible.check(reader, node.place, &link);
        return Some(PollUrl::Link(link));
    }
    match UrlTemplate::parse(text) {
        Ok(_) => url(reader, node, visible).map(PollUrl::Formed),
        Err(error) => {
            let expected = format!(
                "{}, or a link of the service, `{{{{ response.headers.location }}}}`, and nothing beside it",
                UrlTemplate::EXPECTED
            );
            reader.problem(node.place, error.to_string()).expected = Some(expected);
            None
        }
    }
}
