//! Content codings (RFC 9110 section 8.4.1). None is asked for, but a server may use one all the same.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use flate2::{Decompress, FlushDecompress, Status, write};

/// Bytes of a coded body that are decoded at once: they become some thousand times as many at most.
const PIECE_BYTES: usize = 1_024;

/// Why a body was not decoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// It is longer than may be.
    TooLarge,
    Undecodable(String),
}

/// The body without the codings that `Content-Encoding` lists.
pub(crate) fn decode(codings: &str, body: &[u8], bytes_max: usize) -> Result<Vec<u8>, Failed> {
    let mut body = body.to_vec();
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
            _ => return Err(Failed::Undecodable(not_asked_for(coding))),
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
        Err(error) => Err(Failed::Undecodable(not_decoded(coding, &error))),
    }
}

/// The one content coding of a body that is decoded as it comes.
#[derive(Debug)]
pub(crate) struct Decoding {
    coding: String,
    /// None before the first bytes.
    decoder: Option<Decoder>,
}

#[derive(Debug)]
enum Decoder {
    Gzip(Box<write::MultiGzDecoder<Vec<u8>>>),
    /// The flag: true once its end has come.
    Deflate(Decompress, bool),
}

impl Decoding {
    /// None where nothing has to be decoded.
    pub(crate) fn of(codings: &str) -> Result<Option<Self>, String> {
        let codings = codings.split(',').map(|coding| coding.trim().to_ascii_lowercase());
        let codings: Vec<String> = codings.filter(|coding| !["", "identity"].contains(&coding.as_str())).collect();
        match codings.as_slice() {
            [] => Ok(None),
            [coding] if ["gzip", "x-gzip", "deflate"].contains(&coding.as_str()) => {
                Ok(Some(Self { coding: coding.clone(), decoder: None }))
            }
            // Each could make the body a thousand times as long.
            [_, _, ..] => Err("it is large, and has more than one content coding".to_owned()),
            [coding] => Err(not_asked_for(coding)),
        }
    }

    /// Takes some bytes from the beginning of those that have come, and returns as much of the body as they give.
    pub(crate) fn take(&mut self, coded: &mut Bytes) -> Result<Vec<u8>, String> {
        let piece = coded.split_to(coded.len().min(PIECE_BYTES));
        let is_gzip = self.coding != "deflate";
        let outcome = match self.decoder.get_or_insert_with(|| Decoder::of(is_gzip, &piece)) {
            Decoder::Gzip(decoder) => decoder.write_all(&piece).map(|()| std::mem::take(decoder.get_mut())),
            Decoder::Deflate(decoder, is_over) => inflate_piece(decoder, &piece, is_over),
        };
        outcome.map_err(|error| not_decoded(&self.coding, &error))
    }

    /// The last bytes of the body.
    pub(crate) fn end(self) -> Result<Vec<u8>, String> {
        let outcome = match self.decoder {
            Some(Decoder::Gzip(decoder)) => decoder.finish(),
            Some(Decoder::Deflate(_, false)) => Err(std::io::ErrorKind::UnexpectedEof.into()),
            Some(Decoder::Deflate(_, true)) | None => Ok(Vec::new()),
        };
        outcome.map_err(|error| not_decoded(&self.coding, &error))
    }
}

/// As the other decoders do, it passes over whatever stands behind the end.
fn inflate_piece(decoder: &mut Decompress, piece: &[u8], is_over: &mut bool) -> std::io::Result<Vec<u8>> {
    let (mut rest, mut body, mut buffer) = (piece, Vec::new(), vec![0; 64 * PIECE_BYTES]);
    while !*is_over {
        let (taken, given) = (decoder.total_in(), decoder.total_out());
        *is_over = decoder.decompress(rest, &mut buffer, FlushDecompress::None)? == Status::StreamEnd;
        let length = |bytes: u64| usize::try_from(bytes).map_err(std::io::Error::other);
        let (taken, given) = (length(decoder.total_in() - taken)?, length(decoder.total_out() - given)?);
        rest = rest.get(taken..).unwrap_or_default();
        body.extend_from_slice(buffer.get(..given).unwrap_or_default());
        // Bytes may still come out once all have gone in.
        if taken == 0 && given == 0 {
            break;
        }
    }
    Ok(body)
}

impl Decoder {
    /// `deflate` is told by its first bytes (RFC 1950 section 2.2): some servers leave out the frame.
    fn of(is_gzip: bool, beginning: &[u8]) -> Self {
        let is_framed = matches!(beginning, [first, second, ..]
            if first & 0x0f == 8 && u16::from_be_bytes([*first, *second]) % 31 == 0);
        match is_gzip {
            true => Self::Gzip(Box::new(write::MultiGzDecoder::new(Vec::new()))),
            false => Self::Deflate(Decompress::new(is_framed), false),
        }
    }
}

fn not_asked_for(coding: &str) -> String {
    format!("its content coding is `{coding}`, which was not asked for")
}

fn not_decoded(coding: &str, error: &std::io::Error) -> String {
    format!("it is no {coding}: {error}")
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
            assert_eq!(decode(codings, &body, 100).unwrap(), b"body", "{codings}");
        }
        assert_eq!(decode("br", &[], 100), Ok(Vec::new()));
        for (codings, body, reason) in [
            ("br", b"x".to_vec(), "its content coding is `br`, which was not asked for"),
            ("gzip", b"no gzip".to_vec(), "it is no gzip"),
            ("gzip", gzip(b"body")[..12].to_vec(), "it is no gzip"),
            ("deflate", b"\xff\xff".to_vec(), "it is no deflate"),
        ] {
            let failed = decode(codings, &body, 100).unwrap_err();
            assert!(matches!(&failed, Failed::Undecodable(cause) if cause.contains(reason)), "{failed:?}");
        }
    }

    /// The body, decoded as it comes in pieces of this many bytes, and the most bytes that came out at once.
    fn streamed(coding: &str, body: &[u8], piece: usize) -> Result<(Vec<u8>, usize), String> {
        let mut decoding = Decoding::of(coding)?.unwrap();
        let (mut whole, mut most) = (Vec::new(), 0);
        for piece in body.chunks(piece) {
            let mut coded = Bytes::copy_from_slice(piece);
            while !coded.is_empty() {
                let decoded = decoding.take(&mut coded)?;
                most = most.max(decoded.len());
                whole.extend(decoded);
            }
        }
        whole.extend(decoding.end()?);
        Ok((whole, most))
    }

    #[test]
    fn a_large_body_is_decoded_as_it_comes_and_never_whole_in_memory() {
        let body: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(&body).unwrap();
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::default());
        bare.write_all(&body).unwrap();
        for (coding, coded) in [
            ("gzip", gzip(&body)),
            (" X-Gzip, identity", [gzip(&body[..1_000_000]), gzip(&body[1_000_000..])].concat()),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", bare.finish().unwrap()),
        ] {
            for piece in [2, 1_000, usize::MAX] {
                let (decoded, most) = streamed(coding, &coded, piece).unwrap();
                assert!(decoded == body, "{coding}, by {piece} bytes");
                assert!(most < 2_000_000, "{coding}: {most} bytes at once");
            }
        }
    }

    #[test]
    fn a_large_body_that_is_not_what_its_coding_says_is_told() {
        assert!(Decoding::of("").unwrap().is_none() && Decoding::of("identity, ").unwrap().is_none());
        let coded = gzip(&[7; 100_000]);
        let mut wrong = coded.clone();
        *wrong.last_mut().unwrap() ^= 1;
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(b"body").unwrap();
        let zlib = zlib.finish().unwrap();
        for (coding, coded, reason) in [
            ("br", &coded[..], "`br`, which was not asked for"),
            ("gzip, gzip", &coded, "more than one content coding"),
            ("gzip", b"no gzip at all", "it is no gzip"),
            ("gzip", &coded[..coded.len() - 9], "it is no gzip"),
            ("gzip", &wrong, "it is no gzip"),
            ("deflate", b"\xff\xff\xff", "it is no deflate"),
            ("deflate", &zlib[..zlib.len() - 5], "it is no deflate"),
        ] {
            let cause = streamed(coding, coded, 100).unwrap_err();
            assert!(cause.contains(reason), "{coding}: {cause}");
        }
    }

    #[test]
    fn a_small_body_that_becomes_a_large_one_is_too_large() {
        let bomb = gzip(&vec![0; 10_000_000]);
        assert!(bomb.len() < 20_000);
        assert_eq!(decode("gzip", &bomb, 20_000), Err(Failed::TooLarge));
        assert_eq!(decode("gzip", &gzip(&[7; 100]), 100).map(|body| body.len()), Ok(100));
    }
}
