"""The life of a viewer with its I/O: admission, join, replay, live, close.

`service.py` is that story from top to bottom; `request.py` reads the parameters, `slots.py` and `admission.py` (with
`admission.lua`) hold the limits, `replay.py` has the steps of a replay, `timers.py` what falls due on one heap.
Does not belong here: what an execution is (`executions`), routes (`http`), other protocols' frames (`protocols`).
May import: `log`, `auth`, `live`, `base`; of the emitter the leaves, `wire`, `store` and `tracing`. Never `executions`.
"""
