"""Durable Streams, the reading side: an execution as a stream that a client reads by offsets
(https://github.com/durable-streams/durable-streams, PROTOCOL.md sections 5.5 to 5.8, 8, 9.1, 10).

`routes.py` has the endpoint, `reading.py` what a request asks for and the headers of answers, `offsets.py` places as
text, `items.py` what a log is shown as (its events; other forms come from their protocols), `renderer.py` the stream of
`live=sse`.
Does not belong here: names of other protocols.
May import: `protocols` beside this folder, and what that may.
"""
