//! The queries of the dashboards, put to a Prometheus.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use reqwest::{Client, Url};
use serde_json::Value;

/// The values of Grafana's own variables: an interval, and a regular expression that every flow matches.
const VARIABLES: [(&str, &str); 2] = [("$__rate_interval", "5m"), ("$flow", ".*")];
/// How long until an unanswered query is put again.
const PAUSE: Duration = Duration::from_millis(500);

/// The query of one panel or of one variable.
#[derive(Debug)]
pub struct Query {
    /// Dashboard and panel, for messages.
    pub place: String,
    pub expression: String,
}

/// The queries of all dashboards in a folder.
pub fn queries(folder: &Path) -> Result<Vec<Query>> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let text = std::fs::read_to_string(entry?.path())?;
        let board: Value = serde_json::from_str(&text)?;
        let title = board["title"].as_str().context("a dashboard without a title")?;
        for panel in board["panels"].as_array().into_iter().flatten() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression = target["expr"].as_str().context("a target without an expression")?;
                found.push(query(format!("{title} / {}", panel["title"]), expression));
            }
        }
        for variable in board["templating"]["list"].as_array().into_iter().flatten() {
            let asked = variable["query"]["query"].as_str().context("a variable without a query")?;
            // label_values(metric, label)
            let metric = asked.strip_prefix("label_values(").and_then(|rest| rest.split(',').next());
            found.push(query(format!("{title} / {}", variable["name"]), metric.context("a variable of another kind")?));
        }
    }
    if found.is_empty() {
        bail!("the dashboards in {} have no queries", folder.display());
    }
    Ok(found)
}

fn query(place: String, expression: &str) -> Query {
    let expression = VARIABLES.iter().fold(expression.to_owned(), |text, (name, value)| text.replace(name, value));
    Query { place, expression }
}

/// The queries that the Prometheus at `url` does not answer with a number, with its answers. The first of them gets so
/// much patience (panels show rates only after two scrapes); the others have had it then.
pub async fn unanswered(client: &Client, url: &str, queries: &[Query], patience: Duration) -> Vec<String> {
    let mut findings = vec![];
    for query in queries {
        let until = Instant::now() + if findings.is_empty() { patience } else { Duration::ZERO };
        let answer = loop {
            let answer = ask(client, url, &query.expression).await;
            if matches!(answer, Ok(1..)) || Instant::now() >= until {
                break answer;
            }
            tokio::time::sleep(PAUSE).await;
        };
        match answer {
            Ok(0) => findings.push(format!("{}: nothing for {}", query.place, query.expression)),
            Ok(_) => {}
            Err(error) => findings.push(format!("{}: {error:#}: {}", query.place, query.expression)),
        }
    }
    findings
}

/// How many series with a number a query finds.
async fn ask(client: &Client, url: &str, expression: &str) -> Result<usize> {
    let url = Url::parse_with_params(&format!("{url}/api/v1/query"), [("query", expression)])?;
    let answer: Value = client.get(url).send().await?.json().await?;
    if answer["status"] != "success" {
        bail!("{}", answer["error"].as_str().unwrap_or("no error told"));
    }
    let series = answer["data"]["result"].as_array().context("an answer without a result")?;
    Ok(series.iter().filter(|series| series["value"][1] != "NaN").count())
}
