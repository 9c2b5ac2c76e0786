"""A2A: an execution as a task, over JSON-RPC and REST, for the protocol versions 0.2.5, 0.3 and 1.0."""
