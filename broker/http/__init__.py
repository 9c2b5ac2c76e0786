"""HTTP: accepting connections, the native API, and what all interfaces have in common.

`gateway.py` has what each request needs in every protocol: identity, limits, body, start, cancel, answer, audit line.
`api.py` has the native routes, `jobs.py` those of workers, `errors.py` the middleware that makes problems.
`listener.py`, `shares.py`, `connection.py`, `open_connections.py` and `descriptors.py` handle connections,
`responses.py` limits responses that are no streams, and `static.py` serves `broker/web`.
Does not belong here: decisions about executions or viewers, formats of other protocols.
May import: `ops`, `jobs` and everything below it.
"""
