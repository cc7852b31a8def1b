"""Runs a job to its end with the client that `openapi-python-client` has made of /openapi.json: policy.py URL."""

import sys
import time
import uuid
from http import HTTPStatus

from generated.api.jobs import show_job, show_result, submit_policy
from generated.client import Client
from generated.models import Accepted, JobStatus, PolicyInput, Problem

client = Client(base_url=sys.argv[1])
policy = PolicyInput(holder="ann", cents=1200)

accepted = submit_policy.sync_detailed(client=client, body=policy, idempotency_key=f'"{uuid.uuid4()}"')
assert accepted.status_code == HTTPStatus.ACCEPTED, accepted
assert isinstance(accepted.parsed, Accepted), accepted
job = accepted.parsed.id

deadline = time.monotonic() + 120
while True:
    # A long-poll: the answer comes with the next change.
    status = show_job.sync(job, client=client, wait=5)
    assert isinstance(status, JobStatus), status
    if status.status in ("succeeded", "failed", "cancelled"):
        break
    assert time.monotonic() < deadline, status
assert status.status == "succeeded" and status.sandbox is True, status
result = show_result.sync_detailed(job, client=client)
assert result.status_code == HTTPStatus.OK and b"bill-" in result.content, result

# The synchronous form of the same operation, and a failure, which is a problem.
waited = submit_policy.sync_detailed(client=client, body=policy, prefer="wait=30")
assert waited.status_code == HTTPStatus.OK and b"bill-" in waited.content, waited
refused = submit_policy.sync_detailed(client=client, body=PolicyInput(holder="refused", cents=1), prefer="wait=30")
assert refused.status_code == HTTPStatus.UNPROCESSABLE_ENTITY, refused
assert isinstance(refused.parsed, Problem) and "cannot be insured" in refused.parsed.detail, refused
print("python: ok")
