"""A2A: an execution as a task, over JSON-RPC and REST, for the protocol versions 0.2.5, 0.3 and 1.0.

`projection.py` makes updates of a task from events, in our own model (`model.py`); `v03.py`, `v03_rest.py`, `v10.py`
and `simple.py` (each a `codec.py`) write that model in one version and binding. `rpc.py` and `rest.py` lead to
`handlers.py`; `inbound.py` reads messages, `tasks.py` reads tasks from records and logs, `event_source.py` follows
them; `push.py` has them posted; `card.py` describes agents.
Does not belong in `projection.py`: field names of a version.
May import: `protocols` beside this folder, and what that may.
"""
