"""Operations: the operations stream, probes, rates, and the health of Redis.

`stream.py` serves `GET /api/ops/stream` from `snapshot.py`; `probes.py` has the loopback and the announcement of this
edge; `redis_info.py` and `redis_metrics.py` ask Redis; `dataset.py` notices that its data was lost; `standby.py` runs a
reaper while no worker lives.
Does not belong here: anything a user's request needs to succeed, except `/readyz`.
May import: `streams`, `executions` and below; of the emitter the leaves, `wire`, `store` and `tracing`.
"""
