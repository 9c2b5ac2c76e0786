"""The contract on the wire: ids, keys, the execution record, events as JSON, and what may be stored.

A log entry is a Redis Stream entry `<ms>-<seq>` with one field, whose name is the event's type and whose value is the
event's JSON. A pub/sub message carries a batch of the same entries as lines `<id> <type> <json>\\n`. The JSON is ASCII,
on one line, and goes from the emitter to the viewer's socket without being decoded again.
`keys.py` is the only module that spells a key, `record.py` the only one that names a field of the record.
Does not belong here: connections, clients, retries. A module needs the standard library, msgspec and leaves.
"""
