"""Defaults of the limits: sizes, numbers, and how long things are kept."""

from __future__ import annotations

import os

MAX_EVENT_BYTES = 64 * 1024
"""The size of an event's block in a stream, including the frame: Go's `bufio.Scanner` accepts this much by default, and
a client that gets more reconnects again and again."""
BLOCK_BYTES = 52
"""The size of a block without its type and its JSON, with the longest id (`<15 digits>-<15 digits>`)."""
LOG_MAXLEN = 10_000
FEED_MAXLEN = 2_000
LOG_TTL_SECONDS = 7 * 86_400
LOG_FINISHED_TTL_SECONDS = 86_400
TOMBSTONE_TTL_SECONDS = 7 * 86_400
LOG_MAX_BYTES = 64 * 1024 * 1024
MAX_OPEN_INPUTS = 100
MAX_WAITING_MESSAGES = 50
MAX_PARAMS_BYTES = 64 * 1024
MAX_QUEUED_PER_USER = 5_000
MAX_CONVERSATION_BYTES = 256 * 1024
UNHELD_LEASE_SECONDS = 60
WORKER_MAX_WAITING = 500
MAX_CHILDREN = 500
MAX_CHILD_DEPTH = 8
MAX_ATTEMPT = 2**31 - 1
RECORD_MODEL_CONTENTS = os.environ.get("RUNCAST_RECORD_MODEL_CONTENTS", "").strip() == "1"
"""Whether `model:call` is stored with prompt and answer. Fixed when the process starts."""
