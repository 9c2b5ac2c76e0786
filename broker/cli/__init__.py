"""The `runcast` command. Nothing imports it.

`main.py` reads arguments; `client.py` and `eventsource.py` speak the HTTP API as any client; `terminal.py`,
`transcript.py` and `lines.py` show an execution; `demo.py` and `embedded.py` run the product on this machine; `doctor/`
finds what is wrong with a deployment.
Does not belong here: what an edge needs. `eventsource.py` shares nothing with `live/sse.py`, which it checks.
May import: everything of the broker, and the emitter's public interface.
"""
