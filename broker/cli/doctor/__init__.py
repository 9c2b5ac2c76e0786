"""`runcast doctor`: what of Redis, and of the network between an edge and its viewers, needs a change.

`redis.py`, `address.py` and `network_path.py` measure; `servers.py` and `proxy.py` judge, without I/O; `findings.py` is
the result.
A finding names the setting to change.
Does not belong here: a change of anything. The doctor only reads, and emits events of a test execution.
May import: what `broker.cli` may.
"""
