//! What is written reads back; what is not ours is refused, whatever it is.

use events::limit::{DECODE_ALLOCATION_BYTES_MAX, JSON_DEPTH_MAX};
use events::{DecodeError, EncodeError, RecordKind, Schemas, decode_json};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::drawn::any_record;
use crate::sample::{Any, samples, schemas, slip};

/// Framed as our own schema of that kind would be, with a datum of any bytes.
fn framed(kind: RecordKind, datum: &[u8]) -> Vec<u8> {
    [&[0][..], &crate::sample::IDS.of(kind).to_be_bytes(), datum].concat()
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::Null, |inner, level| if level % 2 == 0 { json!([inner]) } else { json!({"a": inner}) })
}

#[test]
fn every_sample_reads_back_as_it_was_written() {
    for (name, sample) in samples() {
        let read = Any::decode(sample.kind(), &schemas(), &sample.encode().unwrap()).unwrap();
        assert_eq!(read, sample, "{name}");
    }
}

#[test]
fn every_sample_can_be_told_as_json() {
    for (name, sample) in samples() {
        let told = decode_json(&schemas(), sample.kind(), &sample.encode().unwrap()).expect(name);
        let id = if sample.kind() == RecordKind::AuditEntry { "id" } else { "job" };
        assert!(told[id].is_string(), "{name}: {told}");
    }
    let told = decode_json(&schemas(), RecordKind::Slip, &Any::Slip(slip()).encode().unwrap()).unwrap();
    assert_eq!(told["input"], slip().input, "JSON in bytes is shown as what it is");
    assert_eq!(told["done"][0]["step"], slip().done[0].step);
}

#[test]
fn a_null_output_is_not_an_absent_one() {
    let Any::Slip(read) = Any::decode(RecordKind::Slip, &schemas(), &Any::Slip(slip()).encode().unwrap()).unwrap()
    else {
        unreachable!("decoded as a slip")
    };
    assert_eq!((read.done[1].output.clone(), read.done[2].output.clone()), (None, Some(Value::Null)));
}

#[test]
fn a_record_cut_off_anywhere_is_refused_and_so_is_one_with_more() {
    for (name, sample) in samples() {
        let bytes = sample.encode().unwrap();
        for length in 0..bytes.len() {
            let result = Any::decode(sample.kind(), &schemas(), &bytes[..length]);
            assert!(result.is_err(), "{name} cut to {length}: {result:?}");
        }
        let more = [&bytes[..], &[0]].concat();
        let error = Any::decode(sample.kind(), &schemas(), &more).unwrap_err();
        assert!(matches!(error, DecodeError::TrailingBytes(1)), "{name}: {error}");
    }
}

#[test]
fn what_is_not_framed_or_not_known_says_so() {
    let decode = |bytes: &[u8]| Any::decode(RecordKind::Slip, &schemas(), bytes).unwrap_err();
    assert!(matches!(decode(b""), DecodeError::Empty));
    assert!(matches!(decode(b"{\"flow\":1}"), DecodeError::NotFramed(_)));
    assert!(matches!(decode(&[0, 0, 0, 1]), DecodeError::NotFramed(_)));
    assert!(matches!(decode(&[0, 0xff, 0, 0, 1, 9]), DecodeError::NotFramed(_)));
    assert!(matches!(decode(&[0, 0, 0, 0, 77, 9]), DecodeError::UnknownSchema(77)));
    let error = decode(&framed(RecordKind::Cancel, &[])).to_string();
    assert!(error.contains("is meanwhile.Cancel, not meanwhile.Slip"), "{error}");
}

#[test]
fn an_unknown_schema_inside_a_hold_is_asked_for_too() {
    let (_, hold) = samples().into_iter().find(|(name, _)| *name == "backoff").unwrap();
    let only_waits = Schemas::new();
    only_waits.insert(crate::sample::IDS.wait, RecordKind::Wait.latest());
    let error = Any::decode(RecordKind::Wait, &only_waits, &hold.encode().unwrap()).unwrap_err();
    assert!(matches!(error, DecodeError::UnknownSchema(id) if id == crate::sample::IDS.slip), "{error}");
}

#[test]
fn a_length_beyond_reason_is_refused_before_anything_is_allocated() {
    // Zigzag of the largest allowed length, of one more, of i64::MAX and of i64::MIN: of a string that is not there.
    for length in [DECODE_ALLOCATION_BYTES_MAX as i64, DECODE_ALLOCATION_BYTES_MAX as i64 + 1, i64::MAX, i64::MIN] {
        let mut zigzag = ((length << 1) ^ (length >> 63)) as u64;
        let mut datum = Vec::new();
        while zigzag > 0x7f {
            datum.push((zigzag & 0x7f) as u8 | 0x80);
            zigzag >>= 7;
        }
        datum.push(zigzag as u8);
        for kind in RecordKind::ALL {
            let error = Any::decode(kind, &schemas(), &framed(kind, &datum)).unwrap_err();
            assert!(matches!(error, DecodeError::Damaged { .. }), "{error}");
        }
    }
}

#[test]
fn json_is_written_only_as_deep_as_it_can_be_read() {
    let mut deep = slip();
    deep.input = nested(JSON_DEPTH_MAX);
    let bytes = Any::Slip(deep.clone()).encode().unwrap();
    assert_eq!(Any::decode(RecordKind::Slip, &schemas(), &bytes).unwrap(), Any::Slip(deep.clone()));
    deep.done[0].output = Some(nested(JSON_DEPTH_MAX + 1));
    let error = Any::Slip(deep).encode().unwrap_err();
    assert!(matches!(error, EncodeError::TooDeep { field: "output" }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_record_reads_back_as_it_was_written(record in any_record()) {
        let bytes = record.encode().unwrap();
        prop_assert_eq!(Any::decode(record.kind(), &schemas(), &bytes).unwrap(), record);
    }

    #[test]
    fn written_json_keeps_the_order_of_its_fields_and_every_digit(record in any_record()) {
        let bytes = record.encode().unwrap();
        let again = Any::decode(record.kind(), &schemas(), &bytes).unwrap().encode().unwrap();
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn noise_is_refused_or_read_but_never_panics(
        kind in prop::sample::select(&RecordKind::ALL[..]), noise in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let _ = Any::decode(kind, &schemas(), &noise);
        let _ = Any::decode(kind, &schemas(), &framed(kind, &noise));
    }

    #[test]
    fn a_damaged_record_is_refused_or_read_but_never_panics(
        record in any_record(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut bytes = record.encode().unwrap();
        for (index, byte) in changes {
            let place = index.index(bytes.len());
            bytes[place] = byte;
        }
        let _ = Any::decode(record.kind(), &schemas(), &bytes);
    }
}

proptest! {
    #![proptest_config(fuzz::config())]

    #[test]
    fn parts_of_records_in_records_are_refused_or_read_but_never_panic(
        kind in prop::sample::select(&RecordKind::ALL[..]),
        bytes in fuzz::damaged(&samples().iter().map(|(_, sample)| sample.encode().unwrap()).collect::<Vec<_>>()),
    ) {
        let _ = Any::decode(kind, &schemas(), &bytes);
        let _ = decode_json(&schemas(), kind, &bytes);
    }
}
