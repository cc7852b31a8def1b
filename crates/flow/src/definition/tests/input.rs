use super::*;
use sha2::{Digest, Sha256};

#[test]
fn a_schema_is_one_file() {
    refused(
        &with_step("input: { $ref: \"defs.json#/definitions/order\" }\n"),
        &["`defs.json#/definitions/order` is a part of a file", "test.yaml:5:16"],
    );
    refused(
        &with_step("input: { properties: { a: { $ref: other.json } } }\n"),
        &["refers to another file, `other.json`", "$defs"],
    );
    assert!(parse(&with_step("input: { $defs: { n: { type: number } }, $ref: \"#/$defs/n\" }\n")).is_ok());
}

#[test]
fn numbers_of_any_size_are_checked_exactly_and_at_once() {
    let schema = |schema: &str| parse(&with_step(&format!("input: {schema}\n"))).unwrap();
    let is_valid = |flow: &Definition, text: &str| flow.validate_input(&serde_json::from_str(text).unwrap()).is_empty();
    for (of, good, bad) in [
        ("{ type: integer }", &["1", "1.0", "1e2", "123456789012345678901234567890"][..], &["1.5", "\"1\""][..]),
        ("{ type: number, maximum: 10 }", &["-1e400", "9.99"], &["1e400", "123456789012345678901234567890"]),
        ("{ maximum: 100000000000000000001 }", &["100000000000000000001"], &["100000000000000000002"]),
        ("{ enum: [1, 100000000000000000001] }", &["1.0"], &["100000000000000000002"]),
        ("{ uniqueItems: true }", &["[100000000000000000001, 100000000000000000002]"], &["[1, 1.0]"]),
    ] {
        let flow = schema(of);
        for text in good {
            assert!(is_valid(&flow, text), "{of} {text}");
        }
        for text in bad {
            assert!(!is_valid(&flow, text), "{of} {text}");
        }
    }
    // A few bytes that mean a number of gigabytes.
    for text in ["1e999999999", "-1e999999999", "1e-999999999", "[1e999999999, 1e999999998]"] {
        for of in [
            "{ type: integer }",
            "{ type: number, minimum: 0, maximum: 5.5 }",
            "{ multipleOf: 3 }",
            "{ multipleOf: 0.1 }",
            "{ enum: [1, 2.5] }",
            "{ const: 5 }",
            "{ uniqueItems: true }",
            "{ items: { type: integer, multipleOf: 7, exclusiveMaximum: 100000000000000000001 } }",
        ] {
            is_valid(&schema(of), text);
        }
    }
}

#[test]
fn the_version_of_a_document_is_the_digest_of_its_text() {
    let text = r#"{"flow":"t","input":{"maximum":1e20,"title":"e+","minimum":-1.5},"steps":[{"id":"a","native":"f"}]}"#;
    let flow = Definition::from_document(&serde_json::from_str(text).unwrap()).unwrap();
    let digest: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(flow.version(), &digest[..12]);
}
