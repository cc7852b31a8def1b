//! `GET /docs`: a page that shows `/openapi.json`, with a form to run each of its operations. It is one document that
//! needs nothing from anywhere else, in light and dark.

use axum::Router;
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::response::Html;
use axum::routing::get;

const STYLE: &str = include_str!("docs/page.css");
const SCRIPT: &str = include_str!("docs/page.js");
/// The page asks its own origin, and nobody else.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(crate) fn router() -> Router {
    Router::new().route("/docs", get(async || ([(CONTENT_SECURITY_POLICY, POLICY)], Html(page()))))
}

fn page() -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>API - Meanwhile</title>\
         <style>{STYLE}</style><body><nav></nav><main><p>Reading openapi.json ...</p></main>\
         <script>{SCRIPT}</script></body></html>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_never_takes_text_for_markup() {
        let page = page();
        for foreign in ["http://", "https://", "src=", "@import", "import("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(!STYLE.contains("url("));
        for markup in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!page.contains(markup), "{markup}");
        }
        assert_eq!(page.matches("</script>").count(), 1);
        assert!(page.contains("color-scheme: light dark"));
    }
}
