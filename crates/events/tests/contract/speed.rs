//! What one hop costs in encoding and decoding. Run by hand:
//! `cargo test -p events --release -- --ignored --nocapture speed`.

use std::hint::black_box;
use std::time::Instant;

use events::{Schemas, decode_event, decode_slip, encode_event, encode_slip, slip_record};

use crate::sample::{Any, IDS, samples, schemas, slip, trace};

const ROUNDS: u32 = 100_000;

fn time(what: &str, mut round: impl FnMut()) {
    for _ in 0..ROUNDS / 10 {
        round();
    }
    let start = Instant::now();
    for _ in 0..ROUNDS {
        round();
    }
    println!("{what}: {:.2} µs", start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
}

#[test]
#[ignore = "a measurement, not a test"]
fn speed_of_a_slip_and_an_event() {
    let schemas: Schemas = schemas();
    let (slip, topics) = (slip(), events::topic::Topics::default());
    let bytes = encode_slip(&IDS, &slip).unwrap();
    println!("a slip is {} bytes", bytes.len());
    time("encode a slip", || drop(black_box(encode_slip(&IDS, black_box(&slip)))));
    time("a slip's whole record", || drop(black_box(slip_record(&topics, &IDS, "q", black_box(&slip), &trace()))));
    time("decode a slip", || drop(black_box(decode_slip(&schemas, black_box(&bytes)))));
    let Any::JobEvent(event) = samples().swap_remove(3).1 else { unreachable!("the fourth sample is an event") };
    let bytes = encode_event(&IDS, &event).unwrap();
    println!("an event is {} bytes", bytes.len());
    time("encode an event", || drop(black_box(encode_event(&IDS, black_box(&event)))));
    time("decode an event", || drop(black_box(decode_event(&schemas, black_box(&bytes)))));
}
