//! The documentation that a problem's type URI resolves to: a page for people, JSON for programs that ask for it.

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{CATALOGUE, Entry, Kind, Problem};

const STYLE: &str = include_str!("page.css");

/// The page of one problem, as HTML. Links are relative: a proxy may serve this below a path of its own.
pub fn page(entry: &Entry) -> String {
    let body = format!(
        "<small>Problem <code>{}</code></small><h1>{}</h1><dl><dt>HTTP status</dt><dd>{}</dd>\
         <dt>What to do</dt><dd>{}</dd></dl><p><a href=\"../problems\">All problems</a></p>",
        entry.name,
        escape(entry.title),
        entry.status_code(),
        marked_up(entry.remediation),
    );
    document(entry.title, &body)
}

/// The list of all problems, as HTML.
pub fn index() -> String {
    let rows: String = CATALOGUE
        .iter()
        .map(|entry| {
            let Entry { name, status, title, .. } = entry;
            format!(
                "<dt><a href=\"problems/{name}\"><code>{name}</code></a> <small>{status}</small></dt><dd>{}</dd>",
                escape(title)
            )
        })
        .collect();
    document(
        "Problems",
        &format!("<h1>Problems</h1><p>Every error that the API answers with (RFC 9457).</p><dl>{rows}</dl>"),
    )
}

/// `GET /problems` and `GET /problems/{name}`.
pub fn router() -> Router {
    Router::new().route("/problems", get(list)).route("/problems/{name}", get(show))
}

async fn list(headers: HeaderMap) -> Response {
    let problems = || json!({ "problems": CATALOGUE.iter().map(document_of).collect::<Vec<_>>() });
    either(&headers, problems, index)
}

async fn show(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match Kind::parse(&name) {
        Some(kind) => either(&headers, || document_of(kind.entry()), || page(kind.entry())),
        None => (StatusCode::NOT_FOUND, Problem::new(Kind::NotFound, format!("There is no problem `{name}`.")))
            .into_response(),
    }
}

/// The page, unless the caller takes JSON and no HTML.
fn either(headers: &HeaderMap, json: impl FnOnce() -> Value, page: impl FnOnce() -> String) -> Response {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let accepted = accepted.flat_map(|list| list.split(',')).filter_map(|range| range.split(';').next());
    let (mut takes_json, mut takes_html) = (false, false);
    for range in accepted {
        let range = range.trim().to_ascii_lowercase();
        takes_json |= range == "application/json" || range == super::MEDIA_TYPE;
        takes_html |= range == "text/html";
    }
    let mut response = match takes_json && !takes_html {
        true => Json(json()).into_response(),
        false => Html(page()).into_response(),
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

fn document_of(entry: &Entry) -> Value {
    let Entry { name, status, title, remediation, .. } = entry;
    json!({ "name": name, "status": status, "title": title, "remediation": remediation })
}

fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{} - Meanwhile</title><style>{STYLE}</style><body>{body}</body></html>",
        escape(title)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Text with `code` between back-ticks.
fn marked_up(text: &str) -> String {
    let parts = text.split('`').map(escape).enumerate();
    parts.map(|(index, part)| if index % 2 == 1 { format!("<code>{part}</code>") } else { part }).collect()
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt;

    use super::*;

    #[test]
    fn every_problem_has_its_page_and_is_in_the_list() {
        let list = index();
        for entry in CATALOGUE {
            let page = page(entry);
            assert!(page.contains(entry.name) && page.contains(&entry.status.to_string()), "{}", entry.name);
            assert_eq!(entry.remediation.matches('`').count() % 2, 0, "{}", entry.name);
            assert!(!page.contains('`'), "{}", entry.name);
            assert!(list.contains(&format!("\"problems/{}\"", entry.name)), "{}", entry.name);
        }
    }

    #[tokio::test]
    async fn programs_get_json_and_browsers_the_page() {
        let ask = async |path: &str, accept: &str| {
            let request = axum::extract::Request::get(path).header("accept", accept).body(axum::body::Body::empty());
            let response = router().oneshot(request.unwrap()).await.unwrap();
            assert_eq!(response.headers()["vary"], "accept");
            let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
            (
                kind,
                String::from_utf8(axum::body::to_bytes(response.into_body(), 100_000).await.unwrap().into()).unwrap(),
            )
        };
        for browser in ["*/*", "", "text/html,application/json;q=0.9"] {
            let (kind, page) = ask("/problems/gone", browser).await;
            assert!(kind.starts_with("text/html") && page.starts_with("<!doctype html>"), "{browser}");
        }
        for program in ["application/json", "application/problem+json; q=1, */*;q=0.1"] {
            let (kind, text) = ask("/problems/gone", program).await;
            let document: Value = serde_json::from_str(&text).unwrap();
            assert!(kind == "application/json" && document["status"] == 410, "{program}: {text}");
            let (_, text) = ask("/problems", program).await;
            let all: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(all["problems"].as_array().unwrap().len(), CATALOGUE.len());
        }
    }
}
