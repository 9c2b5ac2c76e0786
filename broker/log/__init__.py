"""Reading logs from Redis and following them: history, the subscription, and what is watched here.

`history.py` reads after a cursor and proves that nothing is missing; `subscription.py` and `cluster_subscription.py`
receive messages; `watched.py` joins both for each watched log and resyncs after a gap; `batcher.py` sends concurrent
reads as one exchange; `watch_leases.py` keeps in Redis which executions are watched.
Does not belong here: requests, admission, the life of one viewer (`streams`).
May import: `live`, `base`; of the emitter the leaves, `wire`, `store` and `tracing`.
"""
