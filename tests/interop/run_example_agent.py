"""Runs the agent `guide` of an example with an emitter that records: prints what it returned, and its events."""

import asyncio
import importlib
import json
import sys

import msgspec

from runcast import Context
from runcast.testing import RecordingEmitter

module = importlib.import_module(sys.argv[1])
emitter = RecordingEmitter()
result = asyncio.run(module.guide(Context(emitter, task="What is the weather in Rome?")))
print(
    json.dumps({"result": result, "events": [[type_, msgspec.to_builtins(event)] for type_, event in emitter.events]})
)
