//! `meanwhile flags`: which requests to flows' own addresses become jobs, and how they are answered; over HTTP only.

use std::process::ExitCode;

use anyhow::Context;
use client::{FlagsVersion, FlowFlags};
use serde_json::{Value, json};

use crate::cli::flags::{FlagsCommand, RollbackArgs, SetArgs};
use crate::jobs::explained;
use crate::table::table;

/// `meanwhile flags`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn run(command: FlagsCommand) -> anyhow::Result<ExitCode> {
    match command {
        FlagsCommand::List { json: true, api } => {
            println!("{:#}", api.client()?.flags_document().await.map_err(explained)?);
        }
        FlagsCommand::List { json: false, api } => {
            let flags = api.client()?.flags().await.map_err(explained)?;
            match flags.is_empty() {
                true => println!("no active flow has a route"),
                false => print!("{}", listed(&flags)),
            }
        }
        FlagsCommand::History { flow, json: true, api } => {
            println!("{:#}", api.client()?.flags_history_document(&flow).await.map_err(explained)?);
        }
        FlagsCommand::History { flow, json: false, api } => {
            let versions = api.client()?.flags_history(&flow).await.map_err(explained)?;
            match versions.is_empty() {
                true => println!("{flow} has had no flags yet"),
                false => print!("{}", history(&versions)),
            }
        }
        FlagsCommand::Set(args) => set(args).await?,
        FlagsCommand::Rollback(args) => roll_back(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn set(args: SetArgs) -> anyhow::Result<()> {
    let client = args.api.client()?;
    let present = client.flags_of(&args.flow).await.map_err(explained)?;
    let flags = wanted(&args, &present.version.flags)?;
    let version = present.version.version;
    let changed = client.set_flags(&args.flow, version, &flags, &args.reason).await.map_err(explained)?;
    tell(&changed);
    Ok(())
}

async fn roll_back(args: RollbackArgs) -> anyhow::Result<()> {
    let RollbackArgs { flow, to, reason, api } = args;
    let client = api.client()?;
    let to = match to {
        Some(to) => to,
        None => {
            let present = client.flags_of(&flow).await.map_err(explained)?.version.version;
            anyhow::ensure!(present > 0, "{flow} has had no flags yet: there is nothing to go back to");
            present - 1
        }
    };
    tell(&client.roll_back_flags(&flow, to, &reason).await.map_err(explained)?);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is the command's answer")]
fn tell(changed: &FlowFlags) {
    let FlowFlags { flow, version, effective, .. } = changed;
    println!(
        "{flow} has version {}: {} % of the requests become jobs, answers are {}; all instances know within a second",
        version.version, effective.durable_percent, effective.answer
    );
}

/// The present flags with what the arguments change.
fn wanted(args: &SetArgs, present: &Value) -> anyhow::Result<Value> {
    let mut flags = match &args.file {
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
            serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display()))?
        }
        None => present.clone(),
    };
    anyhow::ensure!(flags.is_object(), "flags are a JSON object");
    if let Some(percent) = args.percent {
        flags["durable"]["percent"] = number(percent);
    }
    let lists = [("allow", &args.allow), ("deny", &args.deny)];
    for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        flags["durable"][name] = json!(list);
    }
    if let Some(by) = &args.by {
        flags["durable"]["by"] = by.as_str().into();
    }
    let words = [("answer", &args.answer), ("hold", &args.hold), ("latency_budget", &args.latency_budget)];
    for (name, word) in words {
        if let Some(word) = word {
            flags[name] = word.as_str().into();
        }
    }
    if !args.async_client.is_empty() {
        flags["async_clients"] = json!(args.async_client);
    }
    Ok(flags)
}

/// A whole number is written without a fraction.
fn number(number: f64) -> Value {
    if number.fract() == 0.0 { json!(number as i64) } else { json!(number) }
}

fn listed(flags: &[FlowFlags]) -> String {
    let row = |flags: &FlowFlags| {
        let FlowFlags { flow, route, version, effective } = flags;
        [
            flow.clone(),
            route.clone(),
            version.version.to_string(),
            format!("{} % by {}", effective.durable_percent, effective.by),
            effective.answer.clone(),
            version.reason.as_deref().unwrap_or_default().replace(char::is_control, " "),
        ]
    };
    table(["FLOW", "ROUTE", "VERSION", "JOBS", "ANSWER", "REASON"], flags.iter().map(row).collect())
}

fn history(versions: &[FlagsVersion]) -> String {
    let row = |version: &FlagsVersion| {
        let back = version.rollback_to.map(|to| format!(" (back to {to})")).unwrap_or_default();
        [
            version.version.to_string(),
            version.changed_at.clone().unwrap_or_default(),
            version.changed_by.clone().unwrap_or_default(),
            format!("{}{back}", version.reason.as_deref().unwrap_or_default().replace(char::is_control, " ")),
            version.flags.to_string(),
        ]
    };
    table(["VERSION", "CHANGED", "BY", "REASON", "FLAGS"], versions.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(line: &str) -> SetArgs {
        let words = ["meanwhile", "flags", "set", "order", "--reason", "x"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Command::Flags(FlagsCommand::Set(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_named_stays_as_it_is() {
        let present = json!({ "durable": { "percent": 1, "by": "tenant", "allow": ["a"] }, "hold": "9s" });
        let wanted = |line: &str| super::wanted(&args(line), &present).unwrap();
        assert_eq!(wanted("--percent 25")["durable"], json!({ "percent": 25, "by": "tenant", "allow": ["a"] }));
        assert_eq!(wanted("--percent 12.5 --allow b --allow c")["durable"]["allow"], json!(["b", "c"]));
        let other = wanted("--answer auto --async-client app/2");
        assert_eq!((&other["answer"], &other["hold"]), (&json!("auto"), &json!("9s")));
        assert_eq!((&other["durable"], &other["async_clients"]), (&present["durable"], &json!(["app/2"])));
    }

    #[test]
    fn a_version_is_a_line_that_says_why_and_what_it_went_back_to() {
        let version = FlagsVersion {
            version: 4,
            flags: json!({ "hold": "1s" }),
            changed_by: Some("default".to_owned()),
            changed_at: Some("2027-01-05T09:30:00.000Z".to_owned()),
            reason: Some("too\nslow".to_owned()),
            rollback_to: Some(2),
        };
        let text = history(&[version]);
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with("4        2027-01-05T09:30:00.000Z  default  too slow (back to 2)"), "{text}");
        assert!(line.ends_with(r#"{"hold":"1s"}"#), "{text}");
    }
}
