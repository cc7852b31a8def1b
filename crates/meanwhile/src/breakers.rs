//! `meanwhile breakers`: which downstreams are not called now, over HTTP only.

use std::process::ExitCode;

use client::{Breaker, BreakerOrder};

use crate::cli::breakers::{BreakersCommand, OrderArgs};
use crate::jobs::explained;
use crate::table::table;

/// `meanwhile breakers`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn run(command: BreakersCommand) -> anyhow::Result<ExitCode> {
    match command {
        BreakersCommand::List { json: true, api } => {
            println!("{:#}", api.client()?.breakers_document().await.map_err(explained)?);
        }
        BreakersCommand::List { json: false, api } => {
            let breakers = api.client()?.breakers().await.map_err(explained)?;
            match breakers.is_empty() {
                true => println!("no breaker has ever opened"),
                false => print!("{}", shown(&breakers)),
            }
        }
        BreakersCommand::Open(args) => order(args, BreakerOrder::Open, "is not called any more").await?,
        BreakersCommand::Close(args) => order(args, BreakerOrder::Closed, "is called, whatever it answers").await?,
        BreakersCommand::Auto(args) => order(args, BreakerOrder::Auto, "is called as its answers allow").await?,
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "this is the command's answer")]
async fn order(args: OrderArgs, order: BreakerOrder, so: &str) -> anyhow::Result<()> {
    let OrderArgs { downstream, reason, api } = args;
    let client = api.client()?;
    let is_known = client.set_breaker(&downstream, order, reason.as_deref()).await.map_err(explained)?;
    println!("{downstream} {so}; all workers know within a second");
    if !is_known {
        println!("warning: no active flow names {downstream}, and it has had no breaker yet; check the name");
    }
    Ok(())
}

fn shown(breakers: &[Breaker]) -> String {
    table(["DOWNSTREAM", "STATE", "SINCE", "WAITING", "NEXT PROBE", "REASON"], breakers.iter().map(row).collect())
}

fn row(breaker: &Breaker) -> [String; 6] {
    let by = if breaker.forced { ", by order" } else { "" };
    let reason = breaker.reason.as_deref().unwrap_or_default().replace(char::is_control, " ");
    [
        breaker.downstream.clone(),
        format!("{}{by}", breaker.state),
        breaker.since.clone(),
        breaker.waiting.to_string(),
        breaker.next_probe_at.clone().unwrap_or_default(),
        reason,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breaker_is_a_line_that_says_who_wanted_it_so() {
        let breaker = Breaker {
            downstream: "payments:443".to_owned(),
            state: "open".to_owned(),
            forced: true,
            since: "2026-01-05T09:30:00.000Z".to_owned(),
            waiting: 17,
            reason: Some("moving house".to_owned()),
            next_probe_at: None,
        };
        let text = shown(&[breaker]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("payments:443  open, by order  2026-01-05"), "{text}");
        assert!(lines[1].contains(" 17 ") && lines[1].ends_with("moving house"), "{text}");
    }
}
