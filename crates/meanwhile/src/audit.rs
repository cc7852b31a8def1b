//! `meanwhile audit`: who has changed what, over HTTP only.

use std::process::ExitCode;

use client::{AuditChoice, AuditEntry};

use crate::cli::audit::AuditArgs;
use crate::jobs::explained;
use crate::table::table;

/// `meanwhile audit`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn run(args: AuditArgs) -> anyhow::Result<ExitCode> {
    let AuditArgs { subject, action, object, since, until, limit, json, api } = args;
    let (client, choice) = (api.client()?, AuditChoice { subject, action, object, since, until });
    if json {
        println!("{:#}", client.audit_document(&choice, limit).await.map_err(explained)?);
        return Ok(ExitCode::SUCCESS);
    }
    let entries = client.audit(&choice, limit).await.map_err(explained)?;
    match entries.is_empty() {
        true => println!("nothing of that was asked for"),
        false => print!("{}", shown(&entries)),
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(entries: &[AuditEntry]) -> String {
    let row = |entry: &AuditEntry| {
        [
            entry.at.clone(),
            entry.subject.clone().unwrap_or_default(),
            entry.action.clone(),
            entry.object.clone(),
            entry.client.clone().unwrap_or_default(),
            entry.status.map_or_else(|| "not known".to_owned(), |status| status.to_string()),
        ]
    };
    table(["AT", "SUBJECT", "ACTION", "OBJECT", "CLIENT", "STATUS"], entries.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_without_a_status_says_that_nobody_knows_how_it_ended() {
        let entry = AuditEntry {
            at: "2027-01-05T09:30:00.000Z".to_owned(),
            subject: Some("key:4f2a90c1d3e5b687".to_owned()),
            action: "flags.set".to_owned(),
            object: "order".to_owned(),
            client: None,
            status: None,
        };
        let text = shown(&[entry]);
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with("2027-01-05T09:30:00.000Z  key:4f2a90c1d3e5b687  flags.set  order"), "{text}");
        assert!(line.trim_end().ends_with("not known"), "{text}");
    }
}
