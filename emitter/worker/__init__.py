"""The worker runtime: claims executions, runs agents, keeps their leases, stops in order.

`worker.py` is the process, `prefetch.py` the jobs that are read and not claimed, `attempt.py` one execution from claim
to end, `leases.py` the thread that renews leases and reads cancels. `blockers.py` finds agents that block the loop,
`deadlines.py` and `retries.py` decide without I/O, `endings.py` has how attempts end, `agents.py` is the registry and
the context, `schedule.py` and `scheduler.py` start executions at ticks, `metrics.py` and `probes.py` answer Prometheus
and Kubernetes.
Does not belong here: scripts and keys (`store`, `wire`). May import: `publishing` and everything below it.
"""
