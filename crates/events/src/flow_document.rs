//! A flow as it stands on `meanwhile.flows`: JSON, keyed by `flow@version`.

use flow::definition::{Definition, Problem};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One version of a flow. The highest revision of a flow is the active one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowDocument {
    /// The flow's name.
    pub flow: String,
    /// The content's address.
    pub version: String,
    /// Rises with every `flows apply`; Postgres counts.
    pub revision: i64,
    /// The canonical definition, with the schemas that it names inlined.
    pub document: Value,
}

/// The bytes are not a flow that can be used.
#[derive(Debug, thiserror::Error)]
pub enum NotAFlow {
    /// They are no flow document at all.
    #[error("not a flow document: {0}")]
    NotADocument(String),
    /// The definition is wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Problems(Vec<Problem>),
    /// The content's hash is not the version that it claims, or its name is another.
    #[error("{claimed} holds {holds}")]
    OtherContent {
        /// `flow@version` as it is claimed.
        claimed: String,
        /// `flow@version` of the content.
        holds: String,
    },
}

impl FlowDocument {
    /// `flow@version`, the record's key.
    pub fn key(&self) -> String {
        format!("{}@{}", self.flow, self.version)
    }

    /// The record's value.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, a number and JSON are JSON")
    }

    /// The reverse of [`FlowDocument::to_json`]; fields that a later version adds are passed over.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotAFlow> {
        serde_json::from_slice(bytes).map_err(|error| NotAFlow::NotADocument(error.to_string()))
    }

    /// The compiled flow. Its content was compared with the version that it claims.
    pub fn definition(&self) -> Result<Definition, NotAFlow> {
        let definition = Definition::from_document(&self.document).map_err(NotAFlow::Problems)?;
        if definition.name() != self.flow || definition.version() != self.version {
            let holds = format!("{}@{}", definition.name(), definition.version());
            return Err(NotAFlow::OtherContent { claimed: self.key(), holds });
        }
        Ok(definition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_reads_back_as_it_was_written_with_its_fields_in_order() {
        let document = serde_json::json!({"steps": [{"id": "b"}], "flow": "order", "a": 1.1});
        let flow = FlowDocument { flow: "order".into(), version: "0123456789ab".into(), revision: 7, document };
        let read = FlowDocument::parse(&flow.to_json()).unwrap();
        assert_eq!(read, flow);
        assert_eq!(read.document.to_string(), flow.document.to_string());
        assert_eq!(flow.key(), "order@0123456789ab");
    }

    #[test]
    fn a_definition_whose_hash_is_not_its_version_is_refused() {
        let document = serde_json::json!({"flow": "order", "steps": [{"id": "a", "native": "work"}]});
        let version = Definition::from_document(&document).unwrap().version().to_owned();
        let flow = FlowDocument { flow: "order".into(), version: version.clone(), revision: 1, document };
        assert_eq!(flow.definition().unwrap().version(), version);
        for wrong in [
            FlowDocument { version: "0123456789ab".into(), ..flow.clone() },
            FlowDocument { flow: "other".into(), ..flow.clone() },
        ] {
            let error = wrong.definition().unwrap_err().to_string();
            assert_eq!(error, format!("{} holds order@{version}", wrong.key()));
        }
    }

    #[test]
    fn what_is_no_document_says_where() {
        let error = FlowDocument::parse(b"{\"flow\": \"order\"").unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
        assert!(FlowDocument::parse(b"").is_err());
        assert!(FlowDocument::parse(b"{}").unwrap_err().to_string().contains("`flow`"));
    }
}
