//! `meanwhile dead-letters`: what waits for an operator, over HTTP only.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use client::{Client, DeadLetter, Redrive, RedriveMany};

use crate::cli::dead_letters::{DeadLettersCommand, ListArgs, PAGE, RedriveArgs};
use crate::jobs::{explained, input};
use crate::table::table;

/// The longest reason in a table, in characters.
const REASON_CHARS_MAX: usize = 60;

/// `meanwhile dead-letters`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn run(command: DeadLettersCommand) -> anyhow::Result<ExitCode> {
    match command {
        DeadLettersCommand::List(args) => list(args).await?,
        DeadLettersCommand::Show { id, api } => {
            let letter = Client::new(&api.url)?.dead_letter(&id).await.map_err(explained)?;
            println!("{letter:#}");
        }
        DeadLettersCommand::Redrive(args) if args.all => return redrive_all(args).await,
        DeadLettersCommand::Redrive(args) => redrive(args).await?,
        DeadLettersCommand::Drop { id, reason, api } => {
            Client::new(&api.url)?.drop_dead_letter(&id, &reason).await.map_err(explained)?;
            println!("{id} is dropped");
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "this is the command's answer")]
async fn list(args: ListArgs) -> anyhow::Result<()> {
    let (client, choice) = (Client::new(&args.api.url)?, args.choice.choice());
    if args.json {
        let page = client.dead_letters_document(&choice, None, args.limit).await.map_err(explained)?;
        println!("{page:#}");
        return Ok(());
    }
    let page = client.dead_letters(&choice, None, args.limit).await.map_err(explained)?;
    if page.dead_letters.is_empty() {
        println!("nothing waits for an operator");
        return Ok(());
    }
    print!("{}", shown(&page.dead_letters));
    if page.next.is_some() {
        println!("... and more: --limit, or --until the last time above");
    }
    Ok(())
}

fn shown(letters: &[DeadLetter]) -> String {
    table(["ID", "SINCE", "CLASS", "FROM", "REASON"], letters.iter().map(row).collect())
}

fn row(letter: &DeadLetter) -> [String; 5] {
    let from = match (&letter.failed_in, &letter.flow) {
        (Some(place), _) => format!("{}/{}@{}", place.topic, place.partition, place.offset),
        (None, Some(flow)) => format!("flow {flow}"),
        (None, None) => String::new(),
    };
    let mut reason: String = letter.reason.replace(char::is_control, " ");
    if letter.kind == "job" {
        reason = format!("meanwhile jobs show {}", letter.id);
    } else if reason.chars().count() > REASON_CHARS_MAX {
        reason = reason.chars().take(REASON_CHARS_MAX - 1).chain(['…']).collect();
    }
    [letter.id.clone(), letter.at.clone(), letter.class.clone(), from, reason]
}

#[expect(clippy::print_stdout, reason = "this is the command's answer")]
async fn redrive(args: RedriveArgs) -> anyhow::Result<()> {
    let value = args.value.as_deref().map(input).transpose()?;
    let value = value.map(|text| serde_json::from_str(&text).context("--value is not JSON")).transpose()?;
    let id = args.id.unwrap_or_default();
    let client = Client::new(&args.api.url)?;
    // A parked job is listed under its own id, and goes on by its own command.
    if value.is_none() && args.key.is_none() && id.parse::<flow::id::JobId>().is_ok() {
        println!("{} goes on", client.retry(&id, None).await.map_err(explained)?.job);
        return Ok(());
    }
    let order = Redrive { value, key: args.key, force: args.force, ..Redrive::default() };
    let topic = client.redrive(&id, &order).await.map_err(explained)?;
    println!("{id} goes back to {topic}");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is the command's answer")]
async fn redrive_all(args: RedriveArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.api.url)?;
    let mut choice = args.choice.choice();
    // What comes back while this runs is not sent again.
    choice.until.get_or_insert_with(|| events::time::rfc3339(process::Process::system("dead-letters").clock.now_ms()));
    let max = args.rate.min(PAGE);
    let mut order = RedriveMany { choice, after: None, max, dry_run: args.dry_run, force: args.force };
    let (mut chosen, mut redriven, mut left) = (0, 0, 0);
    let mut pace = tokio::time::interval(Duration::from_secs_f64(f64::from(max) / f64::from(args.rate)));
    let verb = if args.dry_run { "would go" } else { "went" };
    loop {
        pace.tick().await;
        let page = client.redrive_many(&order).await.map_err(explained)?;
        (chosen, redriven, left) = (chosen + page.chosen, redriven + page.redriven, left + page.left.len());
        for one in &page.left {
            println!("{} stays: {}", one.id, one.reason);
        }
        match page.next {
            Some(next) => {
                println!("{redriven} {verb} back so far");
                order.after = Some(next);
            }
            None => break,
        }
    }
    println!("{redriven} of {chosen} {verb} back");
    if left > 0 {
        bail!("{left} {} left; the reasons are above", if args.dry_run { "would be" } else { "were" });
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use client::FailedIn;

    use super::*;

    #[test]
    fn a_table_has_aligned_columns_and_bounded_reasons() {
        let letter = DeadLetter {
            id: "2-17".to_owned(),
            kind: "record".to_owned(),
            class: "unknown-flow".to_owned(),
            reason: format!("line\n{}", "x".repeat(100)),
            at: "2026-01-05T09:30:00.000Z".to_owned(),
            status: "open".to_owned(),
            redrives: 0,
            failed_in: Some(FailedIn { topic: "meanwhile.commands".to_owned(), partition: 1, offset: 7 }),
            flow: None,
            step: None,
        };
        let job = DeadLetter {
            id: "0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d".to_owned(),
            kind: "job".to_owned(),
            class: "parked".to_owned(),
            failed_in: None,
            flow: Some("order".to_owned()),
            step: None,
            ..letter.clone()
        };
        let table = shown(&[letter, job]);
        let lines: Vec<&str> = table.lines().collect();
        let column = |line: &str, text: &str| line.find(text).unwrap();
        assert_eq!(column(lines[0], "CLASS"), column(lines[1], "unknown-flow"));
        assert_eq!(column(lines[0], "FROM"), column(lines[2], "flow order"));
        assert!(lines[1].ends_with("xxx…") && lines[1].contains("meanwhile.commands/1@7"), "{table}");
        assert!(lines[2].ends_with("jobs show 0190a6f2-7c1e-7cc0-b1f1-3f4d5a6b7c8d"), "{table}");
    }
}
