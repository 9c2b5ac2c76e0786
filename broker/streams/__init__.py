"""The life of a viewer with its I/O: admission, join, replay, live, close.

`service.py` has the life of a stream from top to bottom, `log_source.py` the part that depends on its log, and
`replay.py` the steps of a replay. `request.py` reads the parameters, `slots.py` and `admission.py` (with
`admission.lua`) hold the limits, `timers.py` has what falls due on one heap.
Does not belong here: what an execution is (`executions`), routes (`http`), other protocols' frames (`protocols`).
May import: `log`, `auth`, `live`, `base`; of the emitter the leaves, `wire`, `store` and `tracing`. Never `executions`.
"""
