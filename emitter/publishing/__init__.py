"""What an agent calls, until the log has its events.

`event_methods.py` has one method for each event type, shared by `agent_emitter.py`, `sync_emitter.py` and
`emitter.testing`; `scopes.py` has the blocks of phases and tools, `async_methods.py` text and ids. An event passes
`hooks.py`, is encoded and redacted by `speakers.py`, waits in the `queue.py` of an `outbox.py`, and is appended by
`publisher.py`, which retries until Redis has answered. `held.py` and `halves.py` hold back the end of a streamed text.
`input_wait.py` waits for a person's answer.
Does not belong here: claiming, retrying and ending executions (`worker`, `store.lifecycle`).
May import: `store`, `settings`, `wire`, `tracing`, leaves.
"""
