//! Answers below the router: to what is not a whole request.

use std::time::{Duration, UNIX_EPOCH};

use axum::http::StatusCode;

use super::Server;
use crate::problem::{Kind, MEDIA_TYPE, Problem};

impl Server {
    /// The problem in place of the answer without a body that the HTTP library gives to a head that it cannot take.
    pub(super) fn refuse_head(&self, status: StatusCode, line_ended: bool) -> Vec<u8> {
        let bytes_max = self.limits.head_bytes_max;
        self.refuse(match status {
            StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE if !line_ended => {
                Problem::new(Kind::UriTooLong, format!("The URL is longer than the {bytes_max} bytes of a head."))
            }
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                let detail = format!("The head has more than {bytes_max} bytes, or too many headers.");
                Problem::new(Kind::HeadersTooLarge, detail)
            }
            status => Problem::new(Kind::of_status(status), "The head of the request is not HTTP.").with_status(status),
        })
    }

    /// The answer to a head that did not arrive in time.
    pub(super) fn refuse_late_head(&self) -> Vec<u8> {
        let seconds = self.limits.head_timeout.as_secs();
        self.refuse(Problem::new(Kind::RequestTimeout, format!("The head did not arrive within {seconds} s.")))
    }

    /// The answer to a connection without TLS at a port that speaks it.
    pub(super) fn refuse_plain(&self) -> Vec<u8> {
        let detail = "This port speaks TLS, and the request came without it.";
        self.refuse(Problem::new(Kind::BadRequest, detail).with_remediation("Use https:// in the URL."))
    }

    fn refuse(&self, problem: Problem) -> Vec<u8> {
        let status = problem.status();
        let body = problem.document(self.public_url.fixed()).to_string();
        let now = UNIX_EPOCH + Duration::from_millis(self.clock.now_ms().unsigned_abs());
        format!(
            "HTTP/1.1 {} {}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {}\r\nconnection: close\r\n\
             cache-control: no-store\r\ndate: {}\r\n\r\n{body}",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
            body.len(),
            httpdate::fmt_http_date(now),
        )
        .into_bytes()
    }
}
