"""What callers do to executions, without HTTP: start, look, list, answer, cancel, publish; and the fold of a log.

`commands.py`, `inputs.py`, `publish.py` and `listing.py` act; `fold.py` folds events into the state (`state.py`),
bounded by `clipping.py` and taken back by `undo.py`; `types.py` has the bodies of requests and answers; `forms.py`
checks answers to forms in a child process.
Does not belong here: `aiohttp`, streams, protocols. Fields of the record are read with `emitter.wire.record` only.
May import: `log`, `auth`, `live`, `base`; of the emitter the leaves, `wire`, `store`, `tracing` and `publishing.hooks`.
"""
