"""LangGraph: what a compiled graph does, in the log of an execution. Needs `pip install 'runcast[langgraph]'`.

    from emitter import Agents, Context
    from emitter.integrations.langgraph import graph_agent, run_graph

    agents = Agents()
    agents.agent("researcher")(graph_agent(graph))

    @agents.agent("writer")
    async def writer(context: Context):
        return await run_graph(graph, {"topic": context.task}, context, result=lambda state: state["draft"])

Nodes become phases; text and reasoning of models stream as they come; tools, tokens and errors are events; what nodes
write with `get_stream_writer()` is mapped by its `type`; `interrupt()`, or LangChain's middleware for human approval,
asks a person and goes on with the answer. Nodes may be sync or async, models stream or not, subgraphs as deep as they
like. Agents that tools run are named in the envelopes of their events. `docs/agents/langgraph.md` has more.
"""

from emitter.integrations.langgraph.agent import execute_graph, graph_agent, run_graph, stream_graph
from emitter.integrations.langgraph.inputs import Ask, ask_interrupt
from emitter.integrations.langgraph.messages import RunningUsage
from emitter.integrations.langgraph.run import NoCheckpointer, StepRefused
from emitter.integrations.langgraph.steering import as_human_messages

__all__ = [
    "Ask",
    "NoCheckpointer",
    "RunningUsage",
    "StepRefused",
    "as_human_messages",
    "ask_interrupt",
    "execute_graph",
    "graph_agent",
    "run_graph",
    "stream_graph",
]
