//! The end of the synchronous form of a flow's own address: `Deprecation` (RFC 9745), `Sunset` (RFC 8594) and `Link`,
//! and 410 after it. Pure.

use std::time::{Duration, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use flow::definition::{Deprecation, Enforce};
use web::problem::{Kind, Problem};

use crate::expiry::SUNSET;

const DEPRECATION: HeaderName = HeaderName::from_static("deprecation");

/// # Errors
/// The problem 410 where the form is over. `is_in_use`: somebody has used it lately.
pub(crate) fn check(end: &Deprecation, is_in_use: bool, now_ms: i64) -> Result<(), Problem> {
    let Some(sunset_ms) = end.sunset_ms.filter(|sunset_ms| *sunset_ms <= now_ms) else { return Ok(()) };
    let is_over = match end.enforce {
        Enforce::Never => false,
        Enforce::Always => true,
        Enforce::WhenUnused => !is_in_use,
    };
    if !is_over {
        return Ok(());
    }
    let detail = format!("It ended at {}.", flow::time::rfc3339(sunset_ms));
    tell(end, Err(Problem::new(Kind::FormRetired, detail))).map(drop)
}

/// Tells in an answer that its form will end, or has ended.
pub(crate) fn tell(end: &Deprecation, answer: Result<Response, Problem>) -> Result<Response, Problem> {
    let told = fields(end);
    match answer {
        Ok(mut response) => {
            for (name, value) in &told {
                match name {
                    // The old service may link to pages of its own.
                    &header::LINK => drop(response.headers_mut().append(name, value.clone())),
                    _ => drop(response.headers_mut().insert(name, value.clone())),
                }
            }
            Ok(response)
        }
        Err(problem) => {
            Err(told.iter().fold(problem, |problem, (name, value)| problem.with_header(name.clone(), value.clone())))
        }
    }
}

fn fields(end: &Deprecation) -> HeaderMap {
    let Deprecation { since_ms, sunset_ms, link, successor, .. } = end;
    let mut fields = HeaderMap::new();
    let mut add = |name: HeaderName, value: String| {
        fields.extend(HeaderValue::try_from(value).ok().map(|value| (name, value)));
    };
    // A date of structured fields (RFC 9651 section 3.3.7).
    add(DEPRECATION, format!("@{}", since_ms.div_euclid(1_000)));
    if let Some(sunset_ms) = sunset_ms {
        let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(*sunset_ms).unwrap_or(0));
        add(SUNSET, httpdate::fmt_http_date(at));
    }
    let page = link.iter().flat_map(|link| {
        let sunset = sunset_ms.map(|_| format!("<{link}>; rel=\"sunset\""));
        [Some(format!("<{link}>; rel=\"deprecation\"")), sunset].into_iter().flatten()
    });
    let successor = successor.iter().map(|successor| format!("<{successor}>; rel=\"successor-version\""));
    let links: Vec<String> = page.chain(successor).collect();
    if !links.is_empty() {
        add(header::LINK, links.join(", "));
    }
    fields
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    fn end(enforce: Enforce) -> Deprecation {
        Deprecation {
            since_ms: 1_767_225_600_999,
            sunset_ms: Some(1_772_323_200_000),
            link: Some("https://docs.example.com/orders".to_owned()),
            successor: Some("/v1/flows/order/jobs".to_owned()),
            enforce,
        }
    }

    #[test]
    fn an_answer_tells_when_its_form_ends_and_where_to_read_of_it() {
        let told = tell(&end(Enforce::Never), Ok("".into_response())).unwrap();
        let field = |name: &str| told.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(field("deprecation"), "@1767225600");
        assert_eq!(field("sunset"), "Sun, 01 Mar 2026 00:00:00 GMT");
        assert_eq!(
            field("link"),
            "<https://docs.example.com/orders>; rel=\"deprecation\", <https://docs.example.com/orders>; \
             rel=\"sunset\", </v1/flows/order/jobs>; rel=\"successor-version\""
        );
    }

    #[test]
    fn links_of_the_old_service_stay_and_its_own_word_of_an_end_does_not() {
        let own = [(header::LINK, "</next>; rel=\"next\""), (DEPRECATION, "@1"), (SUNSET, "soon")];
        let told = tell(&end(Enforce::Never), Ok((own, "").into_response())).unwrap();
        let lines = |name: &HeaderName| told.headers().get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(lines(&header::LINK).len(), 2);
        assert_eq!(lines(&header::LINK)[0], "</next>; rel=\"next\"");
        assert_eq!(lines(&DEPRECATION), ["@1767225600"]);
        assert_eq!(lines(&SUNSET), ["Sun, 01 Mar 2026 00:00:00 GMT"]);
    }

    #[test]
    fn the_form_is_refused_after_its_sunset_where_the_flow_says_so() {
        let sunset_ms = 1_772_323_200_000;
        let refused = |enforce, is_in_use, now_ms| check(&end(enforce), is_in_use, now_ms).is_err();
        for enforce in Enforce::ALL {
            assert!(!refused(enforce, false, sunset_ms - 1), "{enforce:?}");
        }
        assert!(!refused(Enforce::Never, false, sunset_ms));
        assert!(refused(Enforce::Always, true, sunset_ms));
        assert_eq!([true, false].map(|used| refused(Enforce::WhenUnused, used, sunset_ms)), [false, true]);
        let answer = check(&end(Enforce::Always), false, sunset_ms).unwrap_err().into_response();
        assert!(answer.status() == 410 && answer.headers().contains_key("link"), "{answer:?}");
    }
}
