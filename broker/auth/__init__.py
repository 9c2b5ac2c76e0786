"""Who calls, and what the caller may do: tokens, keys, claims, permissions, tickets, revocations, CORS.

`authenticator.py` leads from a request to an `Identity`; `tokens.py`, `claims.py`, `keys.py` and `permissions.py`
decide without I/O; `jwks.py`, `tickets.py` and `revocation_store.py` fetch and store. A decision takes the time as an
argument.
Does not belong here: limits and rates (`streams`, `base`), logs, executions.
May import: `base`; of the emitter the leaves, `wire`, `tracing` and `store`. Never `live`.
"""
