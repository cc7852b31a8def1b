//! A success whose body is over the limit of memory.

use bytes::Bytes;
use flow::decide::HttpAnswer;
use reqwest::Response;

use crate::coding::Decoding;
use crate::{Head, failure};

/// A success whose body is over the limit: its head, and its body as it comes, without its content coding.
#[derive(Debug)]
pub struct Large {
    pub status: u16,
    /// Its `Retry-After` header, as it stands.
    pub retry_after: Option<String>,
    /// Its `Content-Type` header, as it stands.
    pub content_type: Option<String>,
    /// All of its headers that are text, in lower case.
    pub headers: Vec<(String, String)>,
    beginning: std::array::IntoIter<Bytes, 2>,
    response: Response,
    /// None where its body has no coding, or is at its end.
    decoding: Option<Decoding>,
    /// Bytes of the body that have come and are not decoded.
    coded: Bytes,
}

impl Large {
    /// `beginning`: the bytes of its body that have come.
    pub(crate) fn new(head: Head, decoding: Option<Decoding>, beginning: [Bytes; 2], response: Response) -> Self {
        let Head { status, retry_after, content_type, headers, .. } = head;
        let (beginning, coded) = (beginning.into_iter(), Bytes::new());
        Self { status, retry_after, content_type, headers, beginning, response, decoding, coded }
    }

    /// The next bytes of its body; none at its end.
    ///
    /// # Errors
    /// The answer that a body is which did not come whole, or is not what its coding says.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpAnswer> {
        let status = self.status;
        let undecodable = |cause| HttpAnswer::Undecodable { status, cause };
        loop {
            if self.coded.is_empty() {
                match self.next_coded().await? {
                    Some(bytes) => self.coded = bytes,
                    None => {
                        let last = self.decoding.take().map(Decoding::end).transpose().map_err(undecodable)?;
                        return Ok(last.filter(|last| !last.is_empty()).map(Bytes::from));
                    }
                }
            }
            let decoded = match &mut self.decoding {
                Some(decoding) => Bytes::from(decoding.take(&mut self.coded).map_err(undecodable)?),
                None => std::mem::take(&mut self.coded),
            };
            if !decoded.is_empty() {
                return Ok(Some(decoded));
            }
        }
    }

    async fn next_coded(&mut self) -> Result<Option<Bytes>, HttpAnswer> {
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

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests own what they start")]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use crate::{Begun, Call, Client, Guard, Limits};

    use super::*;

    /// The answer to a call that is answered with these bytes, and the request.
    async fn answered(codings: &str, body: &[u8]) -> (Begun, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: {codings}\r\ncontent-length: {}\r\n\r\n", body.len());
        let bytes = [head.as_bytes(), body].concat();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4_096];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            String::from_utf8(request[..length].to_vec()).unwrap()
        });
        let patience = Duration::from_secs(60);
        let limits = Limits {
            response_bytes_max: 1_000,
            connect_timeout: patience,
            idle_connections_max: 1,
            idle_timeout: patience,
        };
        let call = Call { method: "GET", url: &url, headers: Vec::new(), body: None, timeout: patience };
        let begun = Client::new(&limits, Guard::none()).unwrap().begin(call).await;
        (begun, asked.await.unwrap())
    }

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    async fn whole(begun: Begun) -> Result<Vec<u8>, HttpAnswer> {
        let Begun::Large(mut large) = begun else { panic!("{begun:?}") };
        let mut body = Vec::new();
        while let Some(bytes) = large.chunk().await? {
            body.extend(bytes);
        }
        assert_eq!(large.chunk().await?, None, "it has ended");
        Ok(body)
    }

    #[tokio::test]
    async fn a_large_answer_comes_without_its_coding_whether_it_is_large_before_or_after() {
        let noise: Vec<u8> = (0..200_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let zeros = vec![0; 200_000];
        assert!(gzip(&noise).len() > 1_000 && gzip(&zeros).len() < 1_000);
        for body in [&noise, &zeros] {
            let (begun, asked) = answered("gzip", &gzip(body)).await;
            assert!(asked.contains("accept-encoding: identity\r\n"), "{asked}");
            assert!(whole(begun).await.unwrap() == *body);
        }
        let (begun, _) = answered("identity", &noise).await;
        assert!(whole(begun).await.unwrap() == noise);
    }

    #[tokio::test]
    async fn a_large_answer_whose_coding_is_wrong_or_unknown_cannot_be_read() {
        let told = |answer: &HttpAnswer| matches!(answer, HttpAnswer::Undecodable { status: 200, .. });
        let (begun, _) = answered("gzip", &[1; 2_000]).await;
        let answer = whole(begun).await.unwrap_err();
        assert!(told(&answer), "{answer:?}");
        let (begun, _) = answered("br", &[1; 2_000]).await;
        assert!(matches!(&begun, Begun::Whole(answer) if told(answer)), "{begun:?}");
    }
}
