//! The credentials with which a step calls a protected service.
//!
//! Invariant: they depend on the deployment alone (`env`, `secrets`), never on a job. So a caller chooses none, and
//! there are as many as the flows name.

use crate::expression::{Expression, Template, UrlTemplate};

/// The `auth` of a step. It goes with every HTTP request of the step.
pub(crate) enum Auth {
    /// RFC 7617.
    Basic { username: Template, password: Template },
    /// A token that does not change (RFC 6750).
    Bearer(Template),
    /// A token that is asked for by the client's own credentials (RFC 6749 section 4.4).
    OAuth2(Box<OAuth2>),
}

/// A client of a token endpoint.
pub(crate) struct OAuth2 {
    pub(crate) token_url: UrlTemplate,
    pub(crate) client_id: Template,
    pub(crate) client_secret: Template,
    pub(crate) scope: Option<Template>,
    pub(crate) audience: Option<Template>,
    /// True: its credentials stand in the request's body; false: in its `Authorization`.
    pub(crate) in_body: bool,
}

/// True if the text has a value of `secrets` in it.
pub(super) fn is_secret(template: &Template) -> bool {
    template.expressions().into_iter().flat_map(Expression::paths).any(|path| path.starts_with("secrets."))
}
