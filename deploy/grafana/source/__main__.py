"""`python deploy/grafana/source` writes deploy/grafana/dashboards anew, which is what Grafana reads.

The names of an edge's metrics are in `broker/base/metrics.py` and `broker/ops/redis_metrics.py`, of a worker's in
`emitter/worker/metrics.py`; those with colons are recorded by `deploy/prometheus/rules/recording.yml`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edge import EDGE
from overview import OVERVIEW
from panels import dashboard_json
from redis_log import REDIS
from slo import SLO
from workers import WORKERS

DASHBOARDS = Path(__file__).parents[1] / "dashboards"


def main(folder: Path = DASHBOARDS) -> None:
    for dashboard in (OVERVIEW, EDGE, WORKERS, REDIS, SLO):
        text = json.dumps(dashboard_json(dashboard), indent=2, ensure_ascii=False)
        (folder / f"{dashboard.uid.removeprefix('runcast-')}.json").write_text(text + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
