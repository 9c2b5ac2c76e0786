"""The UI message stream of the Vercel AI SDK (versions 5, 6, 7): a turn of a chat is an execution.

`routes.py` has the endpoints, `chat.py` the bodies and the conversation, `renderer.py` events as chunks, `parts.py` the
parts that are sent again when they change. `counted.py` and its routes are for clients that count chunks,
`conversation.py` and `message.py` for pages that are opened again, `approvals.py` for those that answer as the SDK
does. An event without a chunk of its own is a data part, or is not sent.
Does not belong here: names of the two other protocols.
May import: `protocols` beside this folder, and what that may.
"""
