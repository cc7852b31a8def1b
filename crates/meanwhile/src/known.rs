//! Names that a command was given and that nothing has: said where a choice has found nothing.

use anyhow::bail;
use client::Client;
use flow::nearest::nearest;

/// Refuses the name of a flow that is not active. Where the flows cannot be read, nothing is said of it.
pub(crate) async fn check_flow(client: &Client, flow: Option<&str>) -> anyhow::Result<()> {
    let Some(flow) = flow else { return Ok(()) };
    match client.flows().await {
        Ok(known) if !known.iter().any(|known| known == flow) => bail!(unknown("flow", flow, &known)),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn unknown(kind: &str, given: &str, known: &[String]) -> String {
    let all = if known.is_empty() { "there is none".to_owned() } else { known.join(", ") };
    let meant = nearest(given, known.iter().map(String::as_str));
    let meant = meant.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    format!("there is no {kind} `{given}`{meant} ({kind}s: {all})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_told_with_the_nearest_one_and_all_there_are() {
        let known = ["dropship", "order"].map(str::to_owned);
        let told = "there is no flow `ordr`; did you mean `order`? (flows: dropship, order)";
        assert_eq!(unknown("flow", "ordr", &known), told);
        assert_eq!(unknown("flow", "zzz", &[]), "there is no flow `zzz` (flows: there is none)");
    }
}
