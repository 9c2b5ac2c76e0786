"""Jobs for workers that have no Redis and speak HTTP to an edge: claim, renew, publish under an attempt, hand back.

`claims.py` claims, and waits for jobs with `signals.py`; `leases.py` renews and releases. `fences.py` makes and checks
the proof that an attempt is a worker's own; `held.py` keeps what each worker has, and `budgets.py` the budgets.
`waiting.py` is a metric, and `types.py` has the bodies.
Does not belong here: `aiohttp`. What decides whether a job may be claimed are the scripts of `emitter.store.jobs`.
May import: `executions` and everything below it; of the emitter the leaves, `wire` and `store`.
"""
