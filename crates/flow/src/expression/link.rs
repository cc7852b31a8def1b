//! Links: URLs that a service gives, of its own resources. They are followed at the origin of the call that gave them,
//! and nowhere else.
//!
//! Invariant: scheme, host, port and credentials of what comes out are those of the call, as text. So no reader of URLs
//! can see another host in it, whatever the link says.

use super::url::authority;
use super::{Evaluation, Expression, ExpressionError, plain};

/// Bytes of a link.
pub(crate) const LINK_BYTES_MAX: usize = 2_048;

/// The absolute URL that a link means, in the answer to a call of `base`.
pub(crate) fn follow(link: &Expression, base: &str, evaluation: &Evaluation<'_>) -> Result<String, ExpressionError> {
    let text = plain(&link.evaluate(evaluation)?, link.source())?;
    resolve(base, &text).map_err(|why| ExpressionError::new(format!("the link `{{{{ {} }}}}` {why}", link.source())))
}

/// RFC 3986, section 5.2, but for the segments with dots, which the reader of the URL takes out.
fn resolve(base: &str, link: &str) -> Result<String, String> {
    check_text(link)?;
    let link = link.split('#').next().unwrap_or_default();
    let base = base.split('#').next().unwrap_or_default();
    let after = authority(base).ok_or("has no base")?;
    let origin_end = base.len() - after.len() + after.find(['/', '?']).unwrap_or(after.len());
    let (origin, rest) = base.split_at(origin_end);
    let path = rest.split('?').next().unwrap_or_default();
    let local = match scheme(link) {
        Some(_) => local_part(origin, link)?,
        None if link.starts_with("//") => {
            let scheme = origin.split("//").next().unwrap_or_default();
            return resolve(base, &format!("{scheme}{link}"));
        }
        None if link.starts_with('/') => link.to_owned(),
        None if link.starts_with('?') || link.is_empty() => format!("{path}{link}"),
        None => format!("{}/{link}", path.rsplit_once('/').map_or("", |(folder, _)| folder)),
    };
    Ok(format!("{origin}{local}"))
}

fn check_text(link: &str) -> Result<(), String> {
    if link.is_empty() {
        return Err("is empty".to_owned());
    }
    if link.len() > LINK_BYTES_MAX {
        return Err(format!("is longer than {LINK_BYTES_MAX} bytes"));
    }
    let stands = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(byte);
    match link.bytes().all(|byte| stands(&byte)) {
        true => Ok(()),
        false => Err("holds a character that no URL may hold".to_owned()),
    }
}

/// The scheme of an absolute URL.
fn scheme(link: &str) -> Option<&str> {
    let (scheme, _) = link.split_once(':')?;
    let stands = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    (scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && scheme.bytes().all(stands)).then_some(scheme)
}

/// The path and the query of an absolute link of this origin.
fn local_part(origin: &str, link: &str) -> Result<String, String> {
    let has_user = |url: &Parts<'_>| url.authority.contains('@');
    match (Parts::of(origin), Parts::of(link)) {
        (Some(own), Some(other)) if own.origin() == other.origin() && !has_user(&other) => {
            Ok(if other.rest.starts_with('/') { other.rest.to_owned() } else { format!("/{}", other.rest) })
        }
        _ => Err(
            "leads to another scheme, host or port than the step's own call, and is followed nowhere else; where a \
                  proxy changes hosts, `{{ env.NAME }}/path/{{ response.body.id }}` names the resource"
                .to_owned(),
        ),
    }
}

/// An absolute URL in its parts.
struct Parts<'u> {
    is_https: bool,
    authority: &'u str,
    /// Path and query.
    rest: &'u str,
}

impl<'u> Parts<'u> {
    /// None for a scheme other than HTTP's.
    fn of(url: &'u str) -> Option<Self> {
        let (scheme, after) = url.split_once("://")?;
        let is_https = scheme.eq_ignore_ascii_case("https");
        if !is_https && !scheme.eq_ignore_ascii_case("http") {
            return None;
        }
        let (authority, rest) = after.split_at(after.find(['/', '?']).unwrap_or(after.len()));
        Some(Self { is_https, authority, rest })
    }

    /// Scheme, host and port, in one form.
    fn origin(&self) -> (bool, String) {
        let host = self.authority.rsplit_once('@').map_or(self.authority, |(_, host)| host).to_ascii_lowercase();
        let usual = if self.is_https { ":443" } else { ":80" };
        (self.is_https, host.strip_suffix(usual).unwrap_or(&host).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "https://me:pw@Courier:8443/v1/parcels?fast=1";

    fn at(link: &str) -> Result<String, String> {
        resolve(BASE, link)
    }

    #[test]
    fn a_link_is_followed_at_the_origin_of_its_call() {
        for (link, path) in [
            ("/v1/parcels/7", "/v1/parcels/7"),
            ("/", "/"),
            ("7", "/v1/7"),
            ("../7?a=b", "/v1/../7?a=b"),
            ("?id=7", "/v1/parcels?id=7"),
            ("/a#part", "/a"),
            ("https://courier:8443/a/b?c", "/a/b?c"),
            ("HTTPS://COURIER:8443", "/"),
            ("https://courier:8443?a", "/?a"),
            ("//courier:8443/a", "/a"),
            ("/a//evil.test", "/a//evil.test"),
        ] {
            assert_eq!(at(link), Ok(format!("https://me:pw@Courier:8443{path}")), "{link}");
        }
        assert_eq!(resolve("http://a:80", "http://A/x"), Ok("http://a:80/x".to_owned()), "the scheme's own port");
        assert_eq!(resolve("http://a", "x"), Ok("http://a/x".to_owned()));
        assert_eq!(resolve("http://a?q", "?r"), Ok("http://a?r".to_owned()));
    }

    #[test]
    fn nothing_leads_elsewhere() {
        for link in [
            "http://courier:8443/a",
            "https://courier/a",
            "https://courier:8443@evil.test/a",
            "https://me:pw@courier:8443/a",
            "https://evil.test/courier:8443",
            "https://courier:8443.evil.test/",
            "//evil.test/a",
            "///evil.test/a",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "https:/evil.test",
            "https:evil.test",
        ] {
            assert!(at(link).is_err_and(|why| why.contains("another scheme, host or port")), "{link}: {:?}", at(link));
        }
        for link in ["", "/a b", "/\\evil.test", "\\\\evil.test", "/a\n", "/\u{e9}", "/<x>", "ht\ttps://evil.test"] {
            assert!(at(link).is_err(), "{link:?}");
        }
        assert!(at(&format!("/{}", "a".repeat(LINK_BYTES_MAX))).is_err_and(|why| why.contains("longer than")));
    }
}
