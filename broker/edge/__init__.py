"""The process: what an edge is made of, how it starts and stops, and several of them on one port.

`edge.py` is the composition root: its list of parts is the start order and, reversed, the stop order. `supervisor.py`
and `child.py` run N edges; `admin.py` is the admin port; `openapi.py` and `typescript.py` make the description of the
API.
Does not belong here: decisions. A part that needs more than its constructor and two callbacks belongs in its folder.
May import: everything of the broker except `cli`.
"""
