"""The live path: from the entries of a log to the bytes of its viewers. Pure, except for the writes to sockets.

`sse.py` has the frames, `view.py` how a viewer sees a log, `fanout.py` the one write for many viewers, `topic.py` what
is known of a watched log, `viewer.py` a cursor with a transport, `rendering.py` what another protocol must provide;
`gzip_view.py`, `packed_group.py` and `gzip_body.py` have the same in gzip.
Does not belong here: Redis, HTTP requests, timers, tasks. Time is an argument.
May import: `base`; of the emitter the leaves and `wire`. Never `auth`.
"""
