//! Flows' own addresses: each belongs to one flow, and none is Meanwhile's.
//!
//! A flow whose address is taken still reads: jobs stay on their flow, whatever its address. The flow is refused where
//! it is declared and where it is applied.

use std::fmt;

use super::{Definition, Route};

/// Addresses of Meanwhile itself, and everything below them.
const OWN: &[&str] =
    &["/asyncapi.yaml", "/docs", "/healthz", "/metrics", "/openapi.json", "/problems", "/readyz", "/schemas", "/v1"];

impl Route {
    /// True for an address that Meanwhile answers itself, whatever the method.
    pub fn is_own(&self) -> bool {
        let below =
            |own: &str| self.path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        OWN.iter().any(|own| below(own))
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// A flow's address that is taken.
#[derive(Debug, Clone)]
pub struct Clash {
    /// The flow that cannot have it.
    pub flow: Definition,
    /// Its address.
    pub route: Route,
    /// The flow that has it; none where it is Meanwhile's own.
    pub owner: Option<Definition>,
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (route, flow) = (&self.route, self.flow.name());
        match &self.owner {
            Some(owner) => write!(f, "`{route}` is the route of two flows, `{}` and `{flow}`", owner.name()),
            None => write!(f, "`{route}` of flow `{flow}` is one of Meanwhile's own addresses"),
        }
    }
}

/// Every address that is taken. Of flows with the same address the first one has it.
pub fn clashes<'a>(flows: impl IntoIterator<Item = &'a Definition>) -> Vec<Clash> {
    let mut owners: Vec<(&Route, &Definition)> = Vec::new();
    let mut found = Vec::new();
    for flow in flows {
        let Some(route) = flow.route() else { continue };
        let owner = owners.iter().find(|(known, _)| *known == route).map(|(_, owner)| (*owner).clone());
        match owner {
            None if !route.is_own() => owners.push((route, flow)),
            owner => found.push(Clash { flow: flow.clone(), route: route.clone(), owner }),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(name: &str, route: &str) -> Definition {
        let text = format!("flow: {name}\nroute: {route}\nsteps: [{{ id: one, native: one }}]\n");
        Definition::parse_yaml("test.yaml", &text, &mut |_| Err("no references here".to_owned())).unwrap()
    }

    #[test]
    fn an_address_belongs_to_one_flow_and_none_is_meanwhiles() {
        let flows = [
            flow("a", "POST /same"),
            flow("b", "PUT /same"),
            flow("c", "POST /same"),
            flow("d", "POST /healthz"),
            flow("e", "POST /problems/mine"),
            flow("f", "POST /healthz-of-ours"),
            flow("g", "POST /Same"),
        ];
        let told: Vec<String> = clashes(&flows).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "`POST /same` is the route of two flows, `a` and `c`",
                "`POST /healthz` of flow `d` is one of Meanwhile's own addresses",
                "`POST /problems/mine` of flow `e` is one of Meanwhile's own addresses",
            ]
        );
    }
}
