//! Files that hold us to what is published: `schemas/` never changes, and `golden/` holds records of every version,
//! byte for byte. `scripts/check/golden` reads and writes the same files with another implementation of Avro.
//!
//! To add goldens for new samples: `WRITE_GOLDEN=1 cargo test -p events golden`. Existing files are never replaced.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use events::RecordKind;
use events::wait::Wait;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::sample::{Any, IDS, samples};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas")
}

fn golden(kind: RecordKind, version: u32, name: &str, extension: &str) -> PathBuf {
    let file = format!("golden/{}-{version}-{name}.{extension}", kind.folder());
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// Every published file of a kind, by version.
fn published(kind: RecordKind) -> BTreeMap<u32, String> {
    let entries = fs::read_dir(root().join(kind.folder())).unwrap();
    let version =
        |path: &Path| path.file_stem().unwrap().to_str().unwrap().parse().expect("files are named <version>.avsc");
    entries.map(|entry| entry.unwrap().path()).map(|path| (version(&path), fs::read_to_string(path).unwrap())).collect()
}

/// Avro's JSON for a datum, without the union's type names: bytes are text of one character per byte.
fn to_json(value: Avro) -> Value {
    match value {
        Avro::Null => Value::Null,
        Avro::Boolean(value) => json!(value),
        Avro::Int(value) => json!(value),
        Avro::Long(value) => json!(value),
        Avro::String(value) => json!(value),
        Avro::Bytes(value) => value.into_iter().map(char::from).collect::<String>().into(),
        Avro::Union(_, value) => to_json(*value),
        Avro::Array(items) => items.into_iter().map(to_json).collect(),
        Avro::Record(fields) => Value::Object(fields.into_iter().map(|(name, value)| (name, to_json(value))).collect()),
        other => unreachable!("not in our schemas: {other:?}"),
    }
}

/// True for a wait with a slip in it, which is written by the latest version of slips.
fn holds_slip(sample: &Any) -> bool {
    matches!(sample, Any::Wait(Wait::Hold(_) | Wait::Running(_) | Wait::Turn(_)))
}

/// The name of a golden with a slip of a later version in it than the first one of its kind has.
fn with_slip(name: &str) -> String {
    format!("{name}-slip-{}", RecordKind::Slip.latest_version())
}

fn describe(kind: RecordKind, version: u32, bytes: &[u8]) -> String {
    let schema = Schema::parse_str(&published(kind)[&version]).unwrap();
    let datum = GenericDatumReader::builder(&schema).build().unwrap().read_value(&mut &bytes[5..]).unwrap();
    let described = json!({
        "schema": format!("{}/{version}.avsc", kind.folder()),
        "schema_id": IDS.of(kind),
        "datum": to_json(datum),
    });
    serde_json::to_string_pretty(&described).unwrap() + "\n"
}

#[test]
fn golden_records_are_written_and_described_as_ever() {
    for (name, sample) in samples() {
        let (kind, version) = (sample.kind(), sample.kind().latest_version());
        let name = if holds_slip(&sample) { with_slip(name) } else { name.to_owned() };
        let (bin, text) = (golden(kind, version, &name, "bin"), golden(kind, version, &name, "json"));
        let bytes = sample.encode().unwrap();
        if std::env::var_os("WRITE_GOLDEN").is_some() && !bin.exists() {
            fs::write(&bin, &bytes).unwrap();
            fs::write(&text, describe(kind, version, &bytes)).unwrap();
        }
        assert_eq!(fs::read(&bin).unwrap(), bytes, "{}", bin.display());
        assert_eq!(fs::read_to_string(&text).unwrap(), describe(kind, version, &bytes), "{}", text.display());
    }
}

#[test]
fn the_present_reader_reads_golden_records_of_every_published_version() {
    for (name, sample) in samples() {
        let kind = sample.kind();
        for (version, avsc) in published(kind) {
            let bytes = fs::read(golden(kind, version, name, "bin")).unwrap_or_default();
            if version != kind.latest_version() && bytes.is_empty() {
                continue; // a sample that is younger than this version
            }
            // The golden's id belongs to the schema that wrote it.
            let known = events::Schemas::new();
            known.insert(IDS.of(kind), &avsc);
            if kind == RecordKind::Wait {
                // The slips within them are of the version that was the last one then.
                let slip = version.saturating_sub(3) as usize;
                known.insert(IDS.slip, RecordKind::Slip.published()[slip]);
            }
            known.insert_writers(&IDS);
            assert_eq!(Any::decode(kind, &known, &bytes).unwrap(), sample, "{name} of version {version}");
        }
        if holds_slip(&sample) {
            let bytes = fs::read(golden(kind, kind.latest_version(), &with_slip(name), "bin")).unwrap();
            assert_eq!(Any::decode(kind, &crate::sample::schemas(), &bytes).unwrap(), sample, "{name}");
        }
    }
}

#[test]
fn a_published_schema_never_changes() {
    let listed = fs::read_to_string(root().join("published.sha256")).unwrap();
    let mut found = String::new();
    for kind in RecordKind::ALL {
        for (version, text) in published(kind) {
            let digest: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
            found += &format!("{digest}  {}/{version}.avsc\n", kind.folder());
        }
    }
    assert_eq!(found, listed, "edit no published file: add the next version, and its line to schemas/published.sha256");
}

#[test]
fn every_golden_file_belongs_to_a_published_version() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = RecordKind::ALL.into_iter().any(|kind| {
            let rest = name.strip_prefix(kind.folder()).and_then(|rest| rest.strip_prefix('-'));
            let version = rest.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
            version.is_some_and(|version| published(kind).contains_key(&version))
        });
        assert!(known, "{name}");
    }
}
