"""The UI message stream of the Vercel AI SDK (versions 5, 6, 7): a turn of a chat is an execution.

`routes.py` has the endpoints, `chat.py` the bodies and the conversation, `renderer.py` events as chunks, `parts.py` the
parts that are sent again when they change. `turns.py` starts what answers a turn, `runs.py` finds it again.
`counted.py` and its routes are for clients that count chunks, `chunk_items.py` and `durable_routes.py` for those that
read them by offsets,
`conversation.py` and `message.py` for pages that are opened again, `approvals.py` for those that answer as the SDK
does. An event without a chunk of its own is a data part, or is not sent.
Does not belong here: names of the two other protocols.
May import: `protocols` beside this folder, and what that may.
"""
