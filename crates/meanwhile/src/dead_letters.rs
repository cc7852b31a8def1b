//! `meanwhile dead-letters`: what waits for an operator, over HTTP only.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use client::{Choice, Client, DeadLetter, Redrive, RedriveMany, Status};
use flow::document::in_words;
use serde_json::Value;

use crate::cli::dead_letters::{DeadLettersCommand, ListArgs, PAGE, RedriveArgs};
use crate::jobs::{explained, input};
use crate::known::check_flow;
use crate::table::table;

/// The longest reason in a table, in characters.
const REASON_CHARS_MAX: usize = 60;

/// `meanwhile dead-letters`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn run(command: DeadLettersCommand) -> anyhow::Result<ExitCode> {
    match command {
        DeadLettersCommand::List(args) => list(args).await?,
        DeadLettersCommand::Show { id, json, api } => {
            let client = api.client()?;
            let shown = match is_job(&id) {
                true => client.status_document(&id).await,
                false => client.dead_letter(&id).await,
            };
            let shown = shown.map_err(explained)?;
            println!("{:#}", if json { shown } else { without_bytes(shown) });
        }
        DeadLettersCommand::Redrive(args) if args.all => return redrive_all(args).await,
        DeadLettersCommand::Redrive(args) => redrive(args).await?,
        DeadLettersCommand::Drop { id, .. } if is_job(&id) => bail!(
            "{id} is a job: `meanwhile jobs cancel {id}` ends it and undoes what it has done, `meanwhile jobs retry \
             {id}` sends it on"
        ),
        DeadLettersCommand::Drop { id, reason, api } => {
            let client = api.client()?;
            let before = client.dead_letter(&id).await.map_err(explained)?;
            client.drop_dead_letter(&id, &reason).await.map_err(explained)?;
            match was_settled(&before) {
                Some(at) => println!("{id} was dropped before, {at}; its reason stays as it was"),
                None => println!("{id} is dropped"),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A dead letter for people: documents in words, and nothing of their bytes.
fn without_bytes(mut letter: Value) -> Value {
    let Some(words) = in_words(&letter) else { return letter };
    let bytes = letter["record"]["value_base64"].as_str().map(str::len);
    letter = words;
    if let Some(bytes) = bytes {
        letter["record"]["value_base64"] = format!("{bytes} characters; --json tells them").into();
    }
    letter
}

/// A parked job is listed under its own id.
fn is_job(id: &str) -> bool {
    id.parse::<flow::id::JobId>().is_ok()
}

/// The time at which a dead letter went back or was dropped, if it was.
fn was_settled(letter: &Value) -> Option<&str> {
    letter["settled"]["at"].as_str().filter(|_| letter["status"] != "open")
}

#[expect(clippy::print_stdout, reason = "this is the command's answer")]
async fn list(args: ListArgs) -> anyhow::Result<()> {
    let (client, choice) = (args.api.client()?, args.choice.choice());
    if args.json {
        let page = client.dead_letters_document(&choice, None, args.limit).await.map_err(explained)?;
        println!("{page:#}");
        return Ok(());
    }
    let mut page = client.dead_letters(&choice, None, args.limit).await.map_err(explained)?;
    if page.dead_letters.is_empty() {
        println!("{}", nothing(&client, &choice).await?);
        return Ok(());
    }
    let has_jobs = explain_parked(&client, &mut page.dead_letters).await;
    print!("{}", shown(&page.dead_letters));
    if has_jobs {
        println!(
            "parked jobs: `meanwhile jobs show ID` tells more, `jobs retry ID` sends one on, `jobs cancel ID` ends it"
        );
    }
    if page.next.is_some() {
        println!("... and more: --limit, or --until the last time above");
    }
    Ok(())
}

/// The words for an empty list: nothing is there at all, or nothing that was chosen.
async fn nothing(client: &Client, choice: &Choice) -> anyhow::Result<String> {
    check_flow(client, choice.flow.as_deref()).await?;
    if *choice == Choice::default() {
        return Ok("nothing waits for an operator".to_owned());
    }
    let all = client.dead_letters_document(&Choice::default(), None, 1).await.map_err(explained)?;
    let counts = all["counts"].as_object().into_iter().flatten();
    let counts: Vec<String> = counts.map(|(class, count)| format!("{class} {count}")).collect();
    let others = if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
    Ok(format!("nothing that was chosen waits for an operator; dead letters by class: {others}"))
}

/// Gives parked jobs the reason for which they are parked; the list does not tell it. True if there are any.
async fn explain_parked(client: &Client, letters: &mut [DeadLetter]) -> bool {
    let mut has_jobs = false;
    for letter in letters.iter_mut().filter(|letter| letter.kind == "job") {
        has_jobs = true;
        if let Ok(Status { error: Some(error), .. }) = client.status(&letter.id).await {
            letter.reason = format!("{}: {}", error.step, error.message);
        }
    }
    has_jobs
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
    if reason.chars().count() > REASON_CHARS_MAX {
        reason = reason.chars().take(REASON_CHARS_MAX - 1).chain(['…']).collect();
    }
    [letter.id.clone(), letter.at.clone(), letter.class.clone(), from, reason]
}

#[expect(clippy::print_stdout, reason = "this is the command's answer")]
async fn redrive(args: RedriveArgs) -> anyhow::Result<()> {
    let value = args.value.as_deref().map(input).transpose()?;
    let value = value.map(|text| serde_json::from_str(&text).context("--value is not JSON")).transpose()?;
    let id = args.id.unwrap_or_default();
    let client = args.api.client()?;
    // A parked job is listed under its own id, and goes on by its own command.
    if value.is_none() && args.key.is_none() && is_job(&id) {
        println!("{} goes on", client.retry(&id, None).await.map_err(explained)?.job);
        return Ok(());
    }
    let before = client.dead_letter(&id).await.map_err(explained)?;
    let order = Redrive { value, key: args.key, force: args.force, ..Redrive::default() };
    let topic = client.redrive(&id, &order).await.map_err(explained)?;
    match was_settled(&before) {
        Some(at) => println!("{id} went back to {topic} before, {at}; it is not sent again"),
        None => println!("{id} goes back to {topic}"),
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is the command's answer")]
async fn redrive_all(args: RedriveArgs) -> anyhow::Result<ExitCode> {
    let client = args.api.client()?;
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
    if chosen == 0 {
        check_flow(&client, order.choice.flow.as_deref()).await?;
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
    fn a_letter_that_was_settled_says_when() {
        let letter = |status: &str, settled: Value| serde_json::json!({ "status": status, "settled": settled });
        assert_eq!(was_settled(&letter("redriven", serde_json::json!({ "at": "then" }))), Some("then"));
        assert_eq!(was_settled(&letter("open", Value::Null)), None);
    }

    #[test]
    fn a_letter_for_people_tells_documents_in_words_and_no_bytes() {
        let plain = serde_json::json!({ "id": "2-17", "record": { "value_base64": "e30=", "value": {} } });
        assert_eq!(without_bytes(plain.clone()), plain);
        let pdf = flow::document::Document::new("application/pdf", b"%PDF".to_vec()).to_json();
        let letter = serde_json::json!({ "record": { "value_base64": "e30=", "value": { "input": pdf } } });
        let told = without_bytes(letter)["record"].clone();
        assert!(told["value"]["input"].as_str().unwrap().starts_with("application/pdf, 4 bytes, sha256 "), "{told}");
        assert_eq!(told["value_base64"], "4 characters; --json tells them");
    }

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
            reason: "reserve: DELETE was answered 400".to_owned(),
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
        assert!(lines[2].ends_with("  reserve: DELETE was answered 400"), "{table}");
    }
}
