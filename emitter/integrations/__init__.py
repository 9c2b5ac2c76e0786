"""Publishing what other frameworks do: LangGraph graphs, Temporal workflows."""
