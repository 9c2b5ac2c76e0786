"""The client of a Cluster that follows a key to the node it is moving to.

While a slot moves, its node answers ASK for keys that have left it: the client must send ASKING and the command to the
new node over one connection (Redis Cluster specification, "ASK redirection"). redis-py 8.1 sends each over a connection
of the node's pool. With two or more of them these differ, and the command fails for as long as the slot takes to move.
It also fails if it does not know the new node yet.
"""

from __future__ import annotations

import math
import time
from contextvars import ContextVar
from typing import Any

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import ResponseError

ASKING = "ASKING"
FIND_SECONDS = 0.5
"""How often it is asked which node has what, while one does not answer: each answer takes milliseconds to read."""

_is_sending: ContextVar[bool] = ContextVar("is_sending", default=False)


class ClusterClient(RedisCluster):
    """While a command is under way, `get_node` by name is how redis-py finds the node to ask."""

    _found_at = -math.inf

    async def find_nodes(self, failed: str) -> None:
        """Ask which node has what, because the one of this name did not answer. Raises if nobody answers."""
        if time.monotonic() - self._found_at >= FIND_SECONDS:
            self._found_at = time.monotonic()
            await self.nodes_manager.initialize(last_failed_node_name=failed)

    async def _execute_command(self, target_node: Any, *args: Any, **kwargs: Any) -> Any:
        token = _is_sending.set(True)
        try:
            return await super()._execute_command(target_node, *args, **kwargs)
        finally:
            _is_sending.reset(token)

    def get_node(self, host: str | None = None, port: int | None = None, node_name: str | None = None) -> Any:
        node = super().get_node(host, port, node_name)
        if node_name is None or not _is_sending.get():
            return node
        return _Asked(node or self._add_node(node_name))

    def _add_node(self, name: str) -> ClusterNode:
        host, _, port = name.rpartition(":")
        manager = self.nodes_manager
        node = ClusterNode(host, int(port), "primary", **manager.connection_kwargs)
        manager.set_nodes(manager.nodes_cache, {node.name: node})
        return node


class _Asked:
    """A node for one command, which is sent together with ASKING."""

    def __init__(self, node: ClusterNode) -> None:
        self._node: Any = node
        self._asks = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    async def execute_command(self, *arguments: Any, **options: Any) -> Any:
        if arguments == (ASKING,):
            self._asks = True
            return b"OK"
        if not self._asks:
            return await self._node.execute_command(*arguments, **options)
        self._asks = False
        options.pop("asking", None)
        node = self._node
        connection = node.acquire_connection()
        try:
            await node.disconnect_if_needed(connection)
            await connection.send_packed_command(connection.pack_commands([(ASKING,), arguments]))
            await _granted(connection)
            return await node.parse_response(connection, arguments[0], **options)
        finally:
            node.release(connection)


async def _granted(connection: Any) -> None:
    """Read the reply to ASKING. If it is an error, that to the command would be read by the next caller."""
    try:
        await connection.read_response()
    except ResponseError:
        await connection.disconnect(nowait=True)
        raise
