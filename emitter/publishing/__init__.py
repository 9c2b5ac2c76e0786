"""What an agent calls, until the log has its events.

`event_methods.py` has one method for each event type, shared by `agent_emitter.py`, `sync_emitter.py` and
`emitter.testing`. An event passes `hooks.py`, `held.py` and redaction, waits in `queue.py`, and is carried by
`outbox.py` and `publisher.py`, which repeat until Redis has answered. `input_wait.py` waits for a person's answer.
Does not belong here: claiming, retrying and ending executions (`worker`, `store.lifecycle`).
May import: `store`, `wire`, `tracing`, leaves.
"""
