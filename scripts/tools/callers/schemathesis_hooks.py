"""What OpenAPI cannot say of a request: valid requests are made without it (SCHEMATHESIS_HOOKS)."""

import datetime

import schemathesis
from schemathesis.generation.modes import GenerationMode

# A job starts within a year.
LATEST = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=360)


@schemathesis.hook
def before_call(context, case, kwargs):
    # Part of a JSON text is none, and yet has its type (RFC 9110 section 15.3.7).
    if case.headers:
        case.headers.pop("Range", None)
    if case.meta and case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    query, headers = case.query or {}, case.headers or {}
    body = case.body if isinstance(case.body, dict) else {}
    # Opaque: only an earlier answer gives one that means something.
    for place, name in ((query, "cursor"), (query, "after"), (body, "cursor"), (body, "after")):
        place.pop(name, None)
    for name in ("Last-Event-ID", "If-None-Match"):
        headers.pop(name, None)
    # No text of ours holds NUL.
    for name, value in query.items():
        if isinstance(value, str):
            query[name] = value.replace("\0", "")
    # A callback without a URL is none, and few URLs may be called.
    if not str(headers.get("Meanwhile-Callback-URL", "")).startswith("https://"):
        for name in ("URL", "Secret", "Events"):
            headers.pop(f"Meanwhile-Callback-{name}", None)
    # The two exclude each other.
    if "delay" in query:
        query.pop("start_at", None)
    try:
        at = datetime.datetime.fromisoformat(str(query.get("start_at", "")))
    except ValueError:
        return
    if at > LATEST:
        query["start_at"] = LATEST.isoformat()
