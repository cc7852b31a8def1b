//! The headers of a record as one column.

use events::record::Header;

/// The length of a value that is null.
const NULL: u32 = u32::MAX;

/// The bytes of a column of headers were not written by [`encode_headers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the headers of an outbox row cannot be read")]
pub struct BadHeaders;

/// Headers as one blob: for each, in order, length of name (u32, big-endian), name (UTF-8), length of value (u32,
/// big-endian; `u32::MAX` for a null value), value. The relay reads this form faster than an array, which it would
/// have to parse for every row.
pub fn encode_headers(headers: &[Header]) -> Vec<u8> {
    let size_bytes = headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len) + 8).sum();
    let mut blob = Vec::with_capacity(size_bytes);
    for (name, value) in headers {
        push_part(&mut blob, Some(name.as_bytes()));
        push_part(&mut blob, value.as_deref());
    }
    blob
}

fn push_part(blob: &mut Vec<u8>, part: Option<&[u8]>) {
    // Postgres holds no value of more than 1 GiB, so a part too long to count cannot be stored, let alone misread.
    let length = part.map_or(NULL, |part| u32::try_from(part.len()).unwrap_or(NULL));
    blob.extend_from_slice(&length.to_be_bytes());
    blob.extend_from_slice(part.unwrap_or_default());
}

/// The reverse of [`encode_headers`].
pub fn decode_headers(mut blob: &[u8]) -> Result<Vec<Header>, BadHeaders> {
    let mut headers = Vec::new();
    while !blob.is_empty() {
        let name = take_part(&mut blob)?.ok_or(BadHeaders)?;
        let value = take_part(&mut blob)?;
        headers.push((String::from_utf8(name.to_vec()).map_err(|_| BadHeaders)?, value.map(<[u8]>::to_vec)));
    }
    Ok(headers)
}

fn take_part<'a>(blob: &mut &'a [u8]) -> Result<Option<&'a [u8]>, BadHeaders> {
    let (length, rest) = blob.split_first_chunk::<4>().ok_or(BadHeaders)?;
    let length = u32::from_be_bytes(*length);
    if length == NULL {
        *blob = rest;
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| BadHeaders)?;
    let (part, rest) = rest.split_at_checked(length).ok_or(BadHeaders)?;
    *blob = rest;
    Ok(Some(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_read_back_as_they_were_written() {
        let headers = vec![
            ("traceparent".to_owned(), Some(b"00-1-2-01".to_vec())),
            (String::new(), Some(Vec::new())),
            ("null".to_owned(), None),
            ("twice".to_owned(), Some(vec![0, 255])),
            ("twice".to_owned(), Some(vec![1])),
        ];
        assert_eq!(decode_headers(&encode_headers(&headers)), Ok(headers));
        assert_eq!(decode_headers(&[]), Ok(Vec::new()));
    }

    #[test]
    fn torn_headers_are_refused() {
        let blob = encode_headers(&[("name".to_owned(), Some(b"value".to_vec()))]);
        for end in 1..blob.len() {
            assert_eq!(decode_headers(&blob[..end]), Err(BadHeaders), "cut at {end}");
        }
    }
}
