//! From an `auth` in a document to an [`Auth`].

use std::sync::Arc;

use super::auth::{Auth, OAuth2, is_secret};
use super::key;
use super::node::Node;
use super::read_value::{report, required, text_template};
use super::reader::{Fields, Reader};
use super::visible::{self, Visible};
use super::{Action, Call, Completion, Http, Verify};
use crate::expression::{Template, UrlTemplate};

/// The header that `auth` sets.
const AUTHORIZATION: &str = "authorization";

/// The `auth` of a step or of a compensation, if it has one.
pub(super) fn auth(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Arc<Auth>> {
    let node = fields.get("auth")?;
    if fields.get("native").is_some() {
        reader.problem(fields.place_of("auth"), "a native step has no `auth`").hint =
            Some("an `http` step and an `http` compensation have one".to_owned());
    }
    let given = reader.fields(node, "`auth`", key::AUTH)?;
    let found: Vec<_> = key::AUTH.iter().filter_map(|word| Some((*word, given.get(word)?))).collect();
    let auth = match found.as_slice() {
        [("basic", node)] => basic(reader, node),
        [("bearer", node)] => secret(reader, node, "`bearer`").map(Auth::Bearer),
        [("oauth2", node)] => oauth2(reader, node).map(|oauth2| Auth::OAuth2(Box::new(oauth2))),
        _ => {
            reader.problem(node.place, "`auth` is exactly one way to prove who calls").expected =
                Some(key::AUTH.join(", "));
            None
        }
    };
    auth.map(Arc::new)
}

fn basic(reader: &mut Reader<'_>, node: &Node) -> Option<Auth> {
    let fields = reader.fields(node, "`basic`", key::AUTH_BASIC)?;
    let username = required(reader, &fields, "`basic`", "username")
        .and_then(|node| text_template(reader, node, "`username`", &visible_here()));
    let password = required(reader, &fields, "`basic`", "password");
    let password = password.and_then(|node| secret(reader, node, "`password`"));
    Some(Auth::Basic { username: username?, password: password? })
}

fn oauth2(reader: &mut Reader<'_>, node: &Node) -> Option<OAuth2> {
    let fields = reader.fields(node, "`oauth2`", key::AUTH_OAUTH2)?;
    let token_url = required(reader, &fields, "`oauth2`", "token_url").and_then(|node| token_url(reader, node));
    let client_id = required(reader, &fields, "`oauth2`", "client_id")
        .and_then(|node| text_template(reader, node, "`client_id`", &visible_here()));
    let client_secret = required(reader, &fields, "`oauth2`", "client_secret");
    let client_secret = client_secret.and_then(|node| secret(reader, node, "`client_secret`"));
    let mut text = |word: &str| {
        let node = fields.get(word)?;
        text_template(reader, node, &format!("`{word}`"), &visible_here())
    };
    let (scope, audience) = (text("scope"), text("audience"));
    let way = fields.get("client_auth").and_then(|node| reader.word(node, "`client_auth`", key::CLIENT_AUTH));
    let in_body = way == Some(key::POST);
    Some(OAuth2 {
        token_url: token_url?,
        client_id: client_id?,
        client_secret: client_secret?,
        scope,
        audience,
        in_body,
    })
}

fn token_url(reader: &mut Reader<'_>, node: &Node) -> Option<UrlTemplate> {
    let text = reader.text(node, "`token_url`")?;
    let url = report(reader, node.place, UrlTemplate::parse(text))?;
    for expression in url.expressions() {
        visible_here().check(reader, node.place, expression);
    }
    Some(url)
}

const fn visible_here() -> Visible<'static> {
    Visible { roots: visible::AUTH, steps: &[], own: None, when: None }
}

/// A text that must not stand in a flow: flows lie on Kafka and are shown to operators.
fn secret(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<Template> {
    let template = text_template(reader, node, what, &visible_here())?;
    if !is_secret(&template) {
        let problem = reader.problem(node.place, format!("{what} is not one of the worker's secrets"));
        problem.expected = Some("`{{ secrets.NAME }}`".to_owned());
        problem.hint = Some("it is the value of the worker's variable MEANWHILE_SECRET_NAME".to_owned());
    }
    Some(template)
}

/// Gives the requests of a step its credentials.
pub(super) struct Given<'f> {
    pub(super) fields: &'f Fields<'f>,
    pub(super) auth: Option<Arc<Auth>>,
}

impl Given<'_> {
    pub(super) fn to_action(&self, reader: &mut Reader<'_>, action: Option<&mut Action>) {
        if let Some(Action { call: Call::Http(http), .. }) = action {
            self.to_http(reader, http);
        }
    }

    pub(super) fn to_verify(&self, reader: &mut Reader<'_>, verify: Option<&mut Verify>) {
        if let Some(verify) = verify {
            self.to_http(reader, &mut verify.http);
        }
    }

    pub(super) fn to_completion(&self, reader: &mut Reader<'_>, completion: Option<&mut Completion>) {
        if let Some(Completion::Poll(poll)) = completion {
            self.check(reader, &poll.headers);
            poll.auth.clone_from(&self.auth);
        }
    }

    fn to_http(&self, reader: &mut Reader<'_>, http: &mut Http) {
        self.check(reader, &http.headers);
        http.auth.clone_from(&self.auth);
    }

    fn check(&self, reader: &mut Reader<'_>, headers: &[(String, Template)]) {
        if self.auth.is_some() && headers.iter().any(|(name, _)| name == AUTHORIZATION) {
            let message = "`auth` and a header `authorization`: only one of them can be sent";
            reader.problem(self.fields.place_of("auth"), message);
        }
    }
}
