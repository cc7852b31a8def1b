//! The caller of a request: a tenant, and its scopes.

use axum::http::{HeaderValue, header};

use crate::problem::{Kind, Problem};

/// A right, by the word that credentials use for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    JobsSubmit,
    JobsRead,
    JobsCancel,
    Operate,
}

impl Scope {
    pub const ALL: [Self; 4] = [Self::JobsSubmit, Self::JobsRead, Self::JobsCancel, Self::Operate];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JobsSubmit => "jobs:submit",
            Self::JobsRead => "jobs:read",
            Self::JobsCancel => "jobs:cancel",
            Self::Operate => "operate",
        }
    }

    /// The scope that has this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

/// The caller of a request or a record: decided once, at the door, and handed down. Handlers read the tenant from here
/// only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub tenant: String,
    pub scopes: Scopes,
    /// The name in the audit log; the tenant where nobody says who they are.
    pub subject: String,
}

impl Caller {
    /// A caller of this tenant that may do everything.
    pub fn unrestricted(tenant: impl Into<String>) -> Self {
        let tenant = tenant.into();
        Self { subject: tenant.clone(), tenant, scopes: Scopes::all() }
    }

    /// # Errors
    /// The problem 403 for a caller without this scope (RFC 6750 section 3.1).
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.contains(scope) {
            return Ok(());
        }
        let scope = scope.as_str();
        let problem = Problem::new(Kind::Forbidden, format!("This needs the scope `{scope}`."));
        let challenge = format!("Bearer realm=\"meanwhile\", error=\"insufficient_scope\", scope=\"{scope}\"");
        Err(match HeaderValue::try_from(challenge) {
            Ok(challenge) => problem.with_header(header::WWW_AUTHENTICATE, challenge),
            Err(_) => problem,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_may_do_what_its_scopes_say_and_nothing_else() {
        let reader = Caller { scopes: Scopes::from_iter([Scope::JobsRead]), ..Caller::unrestricted("acme") };
        reader.require(Scope::JobsRead).unwrap();
        let problem = reader.require(Scope::JobsSubmit).unwrap_err();
        assert_eq!((problem.kind(), problem.detail()), (Kind::Forbidden, "This needs the scope `jobs:submit`."));
        for scope in Scope::ALL {
            Caller::unrestricted("acme").require(scope).unwrap();
        }
    }
}
