//! The documentation page that a problem's type URI resolves to.

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

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
    Router::new().route("/problems", get(async || Html(index()))).route("/problems/{name}", get(show))
}

async fn show(Path(name): Path<String>) -> Response {
    match Kind::parse(&name) {
        Some(kind) => Html(page(kind.entry())).into_response(),
        None => (StatusCode::NOT_FOUND, Problem::new(Kind::NotFound, format!("There is no problem `{name}`.")))
            .into_response(),
    }
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
}
