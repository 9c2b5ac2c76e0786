"""What other frameworks do, as events: streams of model APIs, LangGraph graphs, Temporal workflows.

Each needs an extra (`runcast[langgraph]`, `runcast[temporal]`) and is imported only by its users; `models.py` reads
streams of OpenAI, Anthropic and LiteLLM by their shape and imports none of them.
Does not belong here: changes of a framework's classes, and rules that agents without a framework need too.
May import: `worker`, `publishing` and everything below. Never `demo`. The integrations never import each other.
"""
