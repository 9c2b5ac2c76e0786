"""The one log in the protocols of other clients. Each has a folder: routes, renderer, description.

A renderer satisfies `broker.live.rendering.Rendering`: entries in, bytes out, with bounded state for one viewer. Routes
go through the gateway, so every protocol has the same limits, log lines and metrics.
`kept.py` bounds what a renderer remembers; `openapi.py` collects the descriptions; `times.py` formats moments.
Does not belong here: reads of Redis that another protocol needs too (`log`, `executions`).
May import: `http` and everything below it. The folders never import each other.
"""
