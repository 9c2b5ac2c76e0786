"""How large things may be and how long they are kept, where no setting says otherwise."""

from __future__ import annotations

import os

MAX_EVENT_BYTES = 64 * 1024
"""Of an event's block in a stream, what stands around its JSON included: so much Go's `bufio.Scanner` takes by default,
and who is sent more comes back for it again and again."""
BLOCK_BYTES = 52
"""What a block has besides its type and its JSON, with the longest of ids (`<15 digits>-<15 digits>`)."""
LOG_MAXLEN = 10_000
FEED_MAXLEN = 2_000
LOG_TTL_SECONDS = 7 * 86_400
LOG_FINISHED_TTL_SECONDS = 86_400
TOMBSTONE_TTL_SECONDS = 7 * 86_400
LOG_MAX_BYTES = 64 * 1024 * 1024
MAX_OPEN_INPUTS = 100
MAX_PARAMS_BYTES = 64 * 1024
MAX_QUEUED_PER_USER = 5_000
MAX_CONVERSATION_BYTES = 256 * 1024
UNHELD_LEASE_SECONDS = 60
MAX_ATTEMPT = 2**31 - 1
RECORD_MODEL_CONTENTS = os.environ.get("RUNCAST_RECORD_MODEL_CONTENTS", "").strip() == "1"
"""Whether `model:call` is stored with what the model was asked and what it answered. Fixed when the process starts."""
