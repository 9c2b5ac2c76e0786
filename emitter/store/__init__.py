"""Everything that touches Redis: clients, the append, and the contracts of jobs, leases, inputs and control channels.

`append.py` with `append.lua` makes a log; `jobs.py` with its scripts is the queue, `lifecycle.py` each step that moves
an execution besides its agent, `reaper.py` the check of what is due, `holds.py` the leases without a worker,
`webhooks.py` what waits for a receiver, `control.py` the one subscription for wake-ups, `connection.py` the clients. A
script decides by the record; Python asks and reads.
Does not belong here: queues in memory, agents, event loops of a worker.
May import: `settings`, `wire`, `tracing`, leaves. Edges use this folder as well as emitters.
"""
