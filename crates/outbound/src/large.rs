//! A success whose body is over the limit of memory.

use bytes::Bytes;
use flow::decide::HttpAnswer;
use reqwest::Response;

use crate::failure;

/// A success whose body is over the limit: its head, and its body as it comes.
#[derive(Debug)]
pub struct Large {
    pub status: u16,
    /// Its `Retry-After` header, as it stands.
    pub retry_after: Option<String>,
    /// Its `Content-Type` header, as it stands.
    pub content_type: Option<String>,
    /// All of its headers that are text, in lower case.
    pub headers: Vec<(String, String)>,
    /// True if its body has a content coding, which nobody has asked for.
    pub is_coded: bool,
    beginning: std::array::IntoIter<Bytes, 2>,
    response: Response,
}

impl Large {
    /// `beginning`: the bytes of its body that have come.
    pub(crate) fn new(
        status: u16,
        retry_after: Option<String>,
        content_type: Option<String>,
        headers: Vec<(String, String)>,
        is_coded: bool,
        beginning: [Bytes; 2],
        response: Response,
    ) -> Self {
        Self { status, retry_after, content_type, headers, is_coded, beginning: beginning.into_iter(), response }
    }

    /// The next bytes of its body; none at its end.
    ///
    /// # Errors
    /// The answer that a body is which did not come whole.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpAnswer> {
        match self.beginning.next() {
            Some(bytes) => Ok(Some(bytes)),
            None => self.response.chunk().await.map_err(failure),
        }
    }

    /// The answer that it is where nobody takes its body.
    pub fn refused(&self, bytes_max: usize) -> HttpAnswer {
        HttpAnswer::TooLarge { status: self.status, limit_bytes: bytes_max as u64, has_store: false }
    }
}
