//! Content codings (RFC 9110 section 8.4.1). None is asked for, but a server may use one all the same.

use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// Why a body was not decoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// It is longer than may be.
    TooLarge,
    Undecodable(String),
}

/// The body without the codings that `Content-Encoding` lists.
pub(crate) fn decode(codings: &str, mut body: Vec<u8>, bytes_max: usize) -> Result<Vec<u8>, Failed> {
    for coding in codings.split(',').rev().map(str::trim).filter(|coding| !coding.is_empty()) {
        if body.is_empty() {
            // The answer to a HEAD, or a 204, may name the coding of what it does not hold.
            break;
        }
        body = match coding.to_ascii_lowercase().as_str() {
            "identity" => body,
            "gzip" | "x-gzip" => inflate(coding, MultiGzDecoder::new(body.as_slice()), bytes_max)?,
            // Some servers leave out the frame that the name stands for.
            "deflate" => match inflate(coding, ZlibDecoder::new(body.as_slice()), bytes_max) {
                Err(Failed::Undecodable(_)) => inflate(coding, DeflateDecoder::new(body.as_slice()), bytes_max)?,
                other => other?,
            },
            _ => return Err(Failed::Undecodable(format!("its content coding is `{coding}`, which was not asked for"))),
        };
    }
    Ok(body)
}

fn inflate(coding: &str, decoder: impl Read, bytes_max: usize) -> Result<Vec<u8>, Failed> {
    let mut body = Vec::new();
    // One byte more tells a body that is just as long as may be from one that is longer.
    let read = decoder.take(bytes_max as u64 + 1).read_to_end(&mut body);
    if body.len() > bytes_max {
        return Err(Failed::TooLarge);
    }
    match read {
        Ok(_) => Ok(body),
        Err(error) => Err(Failed::Undecodable(format!("it is no {coding}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_coding_is_undone_and_an_unknown_one_is_told() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(b"body").unwrap();
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::default());
        bare.write_all(b"body").unwrap();
        for (codings, body) in [
            ("", b"body".to_vec()),
            ("identity", b"body".to_vec()),
            ("gzip", gzip(b"body")),
            ("X-GZIP", [gzip(b"bo"), gzip(b"dy")].concat()),
            ("gzip, identity, gzip", gzip(&gzip(b"body"))),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", bare.finish().unwrap()),
        ] {
            assert_eq!(decode(codings, body, 100).unwrap(), b"body", "{codings}");
        }
        assert_eq!(decode("br", Vec::new(), 100), Ok(Vec::new()));
        for (codings, body, reason) in [
            ("br", b"x".to_vec(), "its content coding is `br`, which was not asked for"),
            ("gzip", b"no gzip".to_vec(), "it is no gzip"),
            ("gzip", gzip(b"body")[..12].to_vec(), "it is no gzip"),
            ("deflate", b"\xff\xff".to_vec(), "it is no deflate"),
        ] {
            let failed = decode(codings, body, 100).unwrap_err();
            assert!(matches!(&failed, Failed::Undecodable(cause) if cause.contains(reason)), "{failed:?}");
        }
    }

    #[test]
    fn a_small_body_that_becomes_a_large_one_is_too_large() {
        let bomb = gzip(&vec![0; 10_000_000]);
        assert!(bomb.len() < 20_000);
        assert_eq!(decode("gzip", bomb, 20_000), Err(Failed::TooLarge));
        assert_eq!(decode("gzip", gzip(&[7; 100]), 100).map(|body| body.len()), Ok(100));
    }
}
