"""Values and tools that every folder of the edge uses: settings, logging, metrics, problems, identity, fairness.

Belongs here: small values and functions that several folders need. `reasons.py` has the closed sets behind
metric labels and log fields; `error_mapping.py` is the one place that turns exceptions into problems.
Does not belong here: anything that knows of logs, viewers, executions or routes.
May import: nothing else of the broker; of the emitter the leaves, `wire`, `tracing` and `settings`.
"""
