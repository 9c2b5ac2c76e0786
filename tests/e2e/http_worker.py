"""A process that claims one job of the agent `doomed` over HTTP, begins it, and renews it until it is killed:
`http_worker.py URL TOKEN`. It prints the attempt."""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any

URL, TOKEN = sys.argv[1:]


def post(path: str, body: Any, **headers: str) -> Any:
    given = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", **headers}
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), given)
    with urllib.request.urlopen(request, timeout=90) as response:
        return json.loads(response.read() or b"null")


agent = {"name": "doomed", "maxAttempts": 2}
found = None
while found is None:
    found = post("/api/agent/jobs/claim", {"worker": "w", "agents": [agent], "waitSeconds": 30})
job = found["jobs"][0]
ref = {name: job[name] for name in ("executionId", "attempt", "fence")}
post(
    f"/api/agent/executions/{job['executionId']}/events",
    {"type": "execution:started", "data": {"task": job["task"], "startedAt": 1, "attempt": job["attempt"]}},
    Attempt=str(job["attempt"]),
    Fence=job["fence"],
)
print(job["attempt"], flush=True)
while True:
    post("/api/agent/jobs/renew", {"worker": "w", "jobs": [ref], "waitSeconds": 30})
