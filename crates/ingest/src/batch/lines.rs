//! The lines of a body, one by one as they arrive.

use std::io;

use axum::body::{Body, Bytes};
use futures_util::{Stream, StreamExt, TryStreamExt};
use tokio_util::codec::{AnyDelimiterCodec, AnyDelimiterCodecError, FramedRead};
use tokio_util::io::StreamReader;
use web::problem::{Kind, Problem};

/// The lines that are not empty. The last one may be an error: what is behind it is not read.
pub(super) fn lines(
    body: Body,
    line_bytes_max: usize,
) -> impl Stream<Item = Result<Bytes, AnyDelimiterCodecError>> + Send + 'static {
    let reader = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
    // Bytes, not text: what is no UTF-8 is the fault of its line alone.
    let codec = AnyDelimiterCodec::new_with_max_length(b"\n".to_vec(), Vec::new(), line_bytes_max);
    let filled = FramedRead::new(reader, codec).try_filter(|line| std::future::ready(!line.trim_ascii().is_empty()));
    // An error ends the stream: after it nothing of the body can be trusted to be a whole line.
    filled.scan(false, |over, line| {
        let ended = std::mem::replace(over, line.is_err());
        std::future::ready((!ended).then_some(line))
    })
}

pub(super) fn unreadable(error: &AnyDelimiterCodecError, line_bytes_max: usize) -> Problem {
    match error {
        AnyDelimiterCodecError::MaxChunkLengthExceeded => {
            let detail = format!("The line is over {line_bytes_max} bytes. It and what follows it were not read.");
            Problem::new(Kind::PayloadTooLarge, detail)
        }
        AnyDelimiterCodecError::Io(error) => {
            Problem::new(Kind::BadRequest, format!("The body ended before its time: {error}. Its rest was not read."))
        }
    }
}
