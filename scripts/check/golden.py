"""Reads and writes the golden records (crates/events/golden) with fastavro; scripts/check/golden calls it."""

import io
import json
import pathlib
import sys

import fastavro


def convert(schema, value, leaf):
    """Walks a datum along its schema and converts what is bytes there."""
    if isinstance(schema, list):
        branches = [branch for branch in schema if branch != "null"]
        return None if value is None else convert(branches[0], value, leaf)
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind == "record":
        unknown = set(value) - {field["name"] for field in schema["fields"]}
        assert not unknown, f"fields that the schema lacks: {unknown}"
        return {field["name"]: convert(field["type"], value[field["name"]], leaf) for field in schema["fields"]}
    if kind == "array":
        return [convert(schema["items"], item, leaf) for item in value]
    return leaf(value) if kind == "bytes" else value


def check(path):
    described = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    schema = json.loads(pathlib.Path("schemas", described["schema"]).read_text(encoding="utf-8"))
    parsed = fastavro.parse_schema(schema, _write_hint=False)
    framed = path.read_bytes()
    frame = b"\0" + described["schema_id"].to_bytes(4, "big", signed=True)
    assert framed[:5] == frame, f"framed as {framed[:5].hex()}, not {frame.hex()}"

    stream = io.BytesIO(framed[5:])
    datum = fastavro.schemaless_reader(stream, parsed)
    rest = stream.read()
    assert not rest, f"{len(rest)} bytes stand after the datum"
    read = convert(schema, datum, lambda value: value.decode("latin-1"))
    assert read == described["datum"], f"fastavro reads {read}"

    stream = io.BytesIO()
    described = convert(schema, described["datum"], lambda value: value.encode("latin-1"))
    fastavro.schemaless_writer(stream, parsed, described)
    assert stream.getvalue() == framed[5:], f"fastavro writes {stream.getvalue().hex()}"


paths = sorted(pathlib.Path("crates/events/golden").glob("*.bin"))
failed = 0
for path in paths:
    try:
        check(path)
    except Exception as error:
        failed += 1
        print(f"check/golden: {path}: {type(error).__name__}: {error}", file=sys.stderr)
if not paths or failed:
    sys.exit(f"check/golden: {failed} of {len(paths)} golden records differ")
print(f"check/golden: fastavro {fastavro.__version__} reads and writes all {len(paths)} golden records as we do")
