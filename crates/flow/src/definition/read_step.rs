//! From a step's entry in a document to a [`Step`].

use serde_json::Value;

use super::limit::{
    DEADLINE_MS_MAX, KEEP_HEADERS_MAX, QUEUE_DEFAULT, SETTLE_MS_MAX, STEPS_MAX, TIMEOUT_MS_DEFAULT, TIMEOUT_MS_MAX,
};
use super::node::Node;
use super::read_auth::Given;
use super::read_retry::retry;
use super::read_value::{headers, required, statuses, template, url};
use super::reader::{Fields, Reader};
use super::visible::{self, Earlier, Visible};
use super::{
    Action, Call, Http, Native, Retry, Step, StepKind, key, read_auth, read_completion, read_fallback, read_limits,
    read_rest, read_simulate, read_verify,
};
use crate::expression::Template;
use crate::media_type::{Form, MediaType, is_token};

/// The header that no step keeps.
const SET_COOKIE: &str = "set-cookie";

/// All steps, of a sandbox or of a flow whose calls are made; those that could not be read are left out (their problems
/// are reported).
pub(super) fn steps(reader: &mut Reader<'_>, node: &Node, sandbox: bool) -> Vec<Step> {
    let Some(items) = reader.list(node, "`steps`") else { return Vec::new() };
    if items.is_empty() {
        reader.problem(node.place, "a flow needs at least one step");
    }
    if items.len() > STEPS_MAX {
        reader.problem(node.place, format!("{} steps are too many", items.len())).expected =
            Some(format!("at most {STEPS_MAX}"));
        return Vec::new();
    }
    let mut steps: Vec<Step> = Vec::with_capacity(items.len());
    let mut earlier: Vec<Earlier> = Vec::with_capacity(items.len());
    for item in items {
        let Some(fields) = reader.fields(item, "a step", key::STEP) else { continue };
        let id = required(reader, &fields, "a step", "id").and_then(|node| {
            let id = reader.name(node, "`id`", false)?;
            if earlier.iter().any(|known| known.id == id) {
                reader.problem(node.place, format!("there are two steps named `{id}`")).expected =
                    Some("ids that differ".to_owned());
            }
            Some(id)
        });
        // A step whose id cannot be read is still looked through.
        let id = id.unwrap_or_default();
        read_rest::note_jumped_over(&steps, &id, &mut earlier);
        let step = step(reader, &fields, &id, &earlier);
        earlier.push(step.as_ref().map_or(Earlier::unread(id), Earlier::of));
        steps.extend(step);
    }
    read_rest::check_targets(reader, items, &earlier);
    read_fallback::check_targets(reader, items, &earlier);
    read_rest::check_signals(reader, items, &steps);
    if sandbox {
        read_simulate::in_sandbox(reader, items, &mut steps);
    }
    steps
}

fn step(reader: &mut Reader<'_>, fields: &Fields<'_>, id: &str, earlier: &[Earlier]) -> Option<Step> {
    let decided = Visible { roots: visible::DECISION, steps: earlier, own: None, when: None };
    let when = fields.get("when").and_then(|node| when(reader, node, &decided));
    let condition = when.as_ref().and_then(visible::source);
    let queue = fields.get("queue").and_then(|node| reader.name(node, "`queue`", true));
    let kind = if read_rest::is_rest(fields) {
        let decided = Visible { when: condition.as_deref(), ..decided };
        read_rest::kind(reader, fields, id, &decided)
    } else {
        let sent =
            Visible { roots: read_completion::roots(fields), steps: earlier, own: None, when: condition.as_deref() };
        call(reader, fields, id, sent)
    };
    let queue = queue.unwrap_or_else(|| QUEUE_DEFAULT.to_owned());
    let downstream = fields.get("downstream").and_then(|node| reader.name(node, "`downstream`", true));
    let limits = fields.get("limits").and_then(|node| read_limits::limits(reader, node)).unwrap_or_default();
    let decided = Visible { when: condition.as_deref(), ..decided };
    let fallback = fields.get("fallback");
    let fallback = fallback.and_then(|node| read_fallback::fallback(reader, node, fields, &decided));
    Some(Step { id: id.to_owned(), queue, when, downstream, limits, fallback, answer_is_read: false, kind: kind? })
}

fn call(reader: &mut Reader<'_>, fields: &Fields<'_>, id: &str, sent: Visible<'_>) -> Option<StepKind> {
    let given = Given { fields, auth: read_auth::auth(reader, fields) };
    let mut action = action(reader, fields, "a step", &sent, Retry::STEP_DEFAULT);
    let idempotent = fields.get("idempotent").and_then(|node| reader.bool(node, "`idempotent`")).unwrap_or(true);
    let mut verify = read_verify::verify(reader, fields, idempotent, &sent);
    let deadline = fields.get("deadline");
    let deadline_ms = deadline.and_then(|node| reader.duration_ms(node, "`deadline`", 1..=DEADLINE_MS_MAX));
    let undone = Visible { roots: visible::CALL, own: Some(id), ..sent };
    let compensation = fields.get("compensate").and_then(|node| {
        let fields = reader.fields(node, "`compensate`", key::COMPENSATE)?;
        let mut action = self::action(reader, &fields, "`compensate`", &undone, Retry::UNDO_DEFAULT);
        let auth = read_auth::auth(reader, &fields).or_else(|| given.auth.clone());
        Given { fields: &fields, auth }.to_action(reader, action.as_mut());
        action
    });
    let settle = fields.get("settle").and_then(|node| settle_ms(reader, fields, node));
    let cancel = fields.get("cancel").and_then(|node| reader.word(node, "`cancel`", key::CANCEL));
    let mut completion = read_completion::completion(reader, fields, &sent);
    given.to_action(reader, action.as_mut());
    given.to_verify(reader, verify.as_mut());
    given.to_completion(reader, completion.as_mut());
    let action = action?;
    read_completion::check_told(reader, fields, &action);
    Some(StepKind::Call {
        settle_ms: settle.unwrap_or_else(|| read_completion::longest_ms(&action, completion.as_ref())),
        action: Box::new(action),
        compensation: compensation.map(Box::new),
        idempotent,
        verify: verify.map(Box::new),
        deadline_ms,
        aborts: cancel == Some(key::ABORT),
        completion,
    })
}

fn settle_ms(reader: &mut Reader<'_>, fields: &Fields<'_>, node: &Node) -> Option<u64> {
    if fields.get("compensate").is_none() && fields.get("verify").is_none() {
        let message = "`settle` without `compensate` or `verify`: the step is neither undone nor asked about";
        reader.problem(fields.place_of("settle"), message);
    }
    reader.duration_ms(node, "`settle`", 0..=SETTLE_MS_MAX)
}

fn when(reader: &mut Reader<'_>, node: &Node, visible: &Visible<'_>) -> Option<Template> {
    let template = template(reader, node, visible)?;
    if matches!(template, Template::Expression(_)) {
        return Some(template);
    }
    reader.problem(node.place, "`when` is not an expression").expected =
        Some("exactly one `{{ }}` that gives true or false".to_owned());
    None
}

fn action(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    what: &str,
    visible: &Visible<'_>,
    default: Retry,
) -> Option<Action> {
    let timeout_ms = fields.get("timeout").and_then(|node| reader.duration_ms(node, "`timeout`", 1..=TIMEOUT_MS_MAX));
    let retry = fields.get("retry").and_then(|node| retry(reader, node, default));
    let call = match (fields.get("http"), fields.get("native")) {
        (Some(node), None) => {
            if fields.get("with").is_some() {
                reader.problem(fields.place_of("with"), "`with` is the input of a native step").hint =
                    Some("an HTTP step sends its `body`".to_owned());
            }
            http(reader, node, visible).map(|http| Call::Http(Box::new(http)))
        }
        (None, Some(node)) => {
            let name = reader.name(node, "`native`", true);
            let with = fields.get("with").and_then(|node| template(reader, node, visible));
            name.map(|name| Call::Native(Native { name, with }))
        }
        (Some(_), Some(_)) => {
            reader.problem(fields.place_of("native"), format!("{what} cannot be both `http` and `native`"));
            None
        }
        (None, None) => {
            reader.missing(fields.place, what, "http");
            None
        }
    };
    let simulate = read_simulate::simulate(reader, fields, visible).map(Box::new);
    let (timeout_ms, retry) = (timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT), retry.unwrap_or(default));
    Some(Action { call: call?, timeout_ms, retry, simulate })
}

fn http(reader: &mut Reader<'_>, node: &Node, visible: &Visible<'_>) -> Option<Http> {
    let fields = reader.fields(node, "`http`", key::HTTP)?;
    let method = required(reader, &fields, "`http`", "method")
        .and_then(|node| reader.word(node, "`method`", key::METHODS))
        .map(str::to_owned);
    let url = required(reader, &fields, "`http`", "url").and_then(|node| url(reader, node, visible));
    let headers =
        fields.get("headers").map(|node| headers(reader, node, visible, key::HEADERS_RESERVED)).unwrap_or_default();
    let body = fields.get("body").and_then(|node| template(reader, node, visible));
    if let (Some(body), true) = (&body, reader.is_strict()) {
        check_content_type(reader, &fields, &headers, body);
    }
    if let (Some("GET" | "HEAD"), Some(_)) = (method.as_deref(), fields.get("body")) {
        reader.problem(fields.place_of("body"), "a GET or HEAD has no `body`");
    }
    let fail_on = fields.get("fail_on").map(|node| statuses(reader, node, "`fail_on`")).unwrap_or_default();
    let retry_on = fields.get("retry_on").map(|node| statuses(reader, node, "`retry_on`")).unwrap_or_default();
    if let Some(status) = fail_on.iter().find(|status| retry_on.contains(status)) {
        reader.problem(fields.place_of("retry_on"), format!("{status} stands in both `fail_on` and `retry_on`"));
    }
    let expose = fields.get("expose").and_then(|node| reader.bool(node, "`expose`")).unwrap_or(false);
    let keep_headers = fields.get("keep_headers").map(|node| keep_headers(reader, node)).unwrap_or_default();
    let (method, url) = (method?, url?);
    let (auth, tells_progress) = (None, false);
    let http = Http { method, url, headers, body, auth, tells_progress, fail_on, retry_on, expose, keep_headers };
    Some(Http { tells_progress: http.uses(read_completion::PROGRESS_URL), ..http })
}

/// The headers of the answer that are kept, in lower case.
fn keep_headers(reader: &mut Reader<'_>, node: &Node) -> Vec<String> {
    let items = reader.list(node, "`keep_headers`").unwrap_or_default();
    if items.len() > KEEP_HEADERS_MAX {
        reader.problem(node.place, format!("{} headers are too many", items.len())).expected =
            Some(format!("at most {KEEP_HEADERS_MAX}"));
    }
    let mut names = Vec::with_capacity(items.len());
    for item in items {
        let Some(text) = reader.text(item, "a header") else { continue };
        let name = text.to_ascii_lowercase();
        if !is_token(&name) {
            reader.problem(item.place, format!("`{text}` is not a header's name"));
        } else if name == SET_COOKIE {
            let message = "`set-cookie` is not kept: it would lie in the clear wherever the job's token does";
            reader.problem(item.place, message);
        }
        names.push(name);
    }
    names
}

/// Refuses a body that its content type cannot hold, as far as that is known before a job runs.
fn check_content_type(reader: &mut Reader<'_>, fields: &Fields<'_>, headers: &[(String, Template)], body: &Template) {
    let content_type = headers.iter().find(|(name, _)| name == "content-type").map(|(_, template)| template);
    let Some(Template::Literal(Value::String(text))) = content_type else { return };
    let media_type = MediaType::parse(text);
    let kind = match body {
        Template::Map(_) | Template::Literal(Value::Object(_)) => "a mapping",
        Template::List(_) | Template::Literal(Value::Array(_)) => "a list",
        Template::Literal(Value::Null) => "null",
        Template::Literal(_) | Template::Expression(_) | Template::Text(_) => "a text",
    };
    let expected = match (media_type.form(), kind) {
        (Form::Multipart, _) => "another content type: bodies of several parts are not supported",
        (Form::Urlencoded, "a list" | "null") => "a mapping, or a text that is encoded already",
        (Form::Text | Form::Xml | Form::Binary | Form::Other, "a mapping" | "a list" | "null") => {
            "a text, or `application/json`"
        }
        _ if media_type.charset().is_err() => "a charset that is known",
        _ => return,
    };
    let message = format!("`body` is {kind}, which cannot be sent as `{text}`");
    reader.problem(fields.place_of("body"), message).expected = Some(expected.to_owned());
}
