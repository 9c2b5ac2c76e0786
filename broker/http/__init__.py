"""HTTP: accepting connections, the native API, and what all interfaces have in common.

`gateway.py` does for every protocol what each request needs (identify, limit, read the body, start, steer, audit);
`api.py` has the native routes; `errors.py` the middleware that makes problems; `listener.py`, `guests.py`,
`connection.py` and `descriptors.py` the connections; `responses.py` bounds what is no stream; `static.py` serves
`broker/web`.
Does not belong here: decisions about executions or viewers, formats of other protocols.
May import: `ops` and everything below it.
"""
