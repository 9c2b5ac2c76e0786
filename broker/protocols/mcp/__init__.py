"""The Model Context Protocol at `/mcp`: agents as tools, executions as tasks and resources, questions as elicitations.

Two eras share one path: 2026-07-28, where each request says all about itself, and 2025-11-25 and earlier, which begin
with `initialize`. Neither has a session on the edge: what would be one is in the ids that the client sends back.
"""
