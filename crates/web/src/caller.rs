//! The caller of a request: a tenant, and its scopes.

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
}

impl Caller {
    /// A caller of this tenant that may do everything.
    pub fn unrestricted(tenant: impl Into<String>) -> Self {
        Self { tenant: tenant.into(), scopes: Scopes::all() }
    }

    /// # Errors
    /// The problem 403 for a caller without this scope.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.contains(scope) {
            return Ok(());
        }
        Err(Problem::new(Kind::Forbidden, format!("This needs the scope `{}`.", scope.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_may_do_what_its_scopes_say_and_nothing_else() {
        let reader = Caller { tenant: "acme".to_owned(), scopes: Scopes::from_iter([Scope::JobsRead]) };
        reader.require(Scope::JobsRead).unwrap();
        let problem = reader.require(Scope::JobsSubmit).unwrap_err();
        assert_eq!((problem.kind(), problem.detail()), (Kind::Forbidden, "This needs the scope `jobs:submit`."));
        for scope in Scope::ALL {
            Caller::unrestricted("acme").require(scope).unwrap();
        }
    }
}
