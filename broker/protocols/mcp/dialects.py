"""How the two eras put a call's messages on a stream. Pure.

2026-07-28: no ids; a question ends the call with `input_required`. 2025-11-25: each message has an id, from which any
edge goes on, and a question is a request of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from broker.protocols.mcp.rpc import Json, RequestId, encode, error_response, response

RETRY_MS = 1000


class Modern:
    """`state` signs for the questions of these ids."""

    is_modern = True

    def __init__(self, request_id: RequestId, state: Callable[[list[str]], str]) -> None:
        self._request_id = request_id
        self._state = state

    def open(self) -> bytes:
        return b""

    def message(self, message: Json, seq: int, *, is_last: bool = True) -> bytes:  # noqa: ARG002 - for the ids
        return b"data: %b\n\n" % encode(message)

    beat = message

    def result(self, result: Json, seq: int, kind: str = "complete") -> bytes:
        return self.message(response(self._request_id, {"resultType": kind, **result}), seq)

    def error(self, error: Json, seq: int) -> bytes:
        return self.message(error_response(self._request_id, error), seq)

    def ask(self, requests: Mapping[str, Json], seq: int) -> bytes:
        """The end of the call: the client calls again, with its answers."""
        asked = {"inputRequests": dict(requests), "requestState": self._state(list(requests))}
        return self.result(asked, seq, "input_required")

    def pause(self) -> bytes:
        """Before a stream is closed from which the client is to come back."""
        return b""


class Legacy:
    """`name` is the stream's (`broker.protocols.mcp.resume`); `after` is the ordinal up to which the client has it."""

    is_modern = False

    def __init__(self, request_id: RequestId, name: str, execution_id: str, after: int | None) -> None:
        self._request_id = request_id
        self._name = name.encode()
        self._execution_id = execution_id
        self._after = -1 if after is None else after

    def open(self) -> bytes:
        """An id at once: who loses the connection now can come back."""
        return b"id: %b.0\ndata: \n\n" % self._name if self._after < 0 else b""

    def message(self, message: Json, seq: int, *, is_last: bool = True) -> bytes:
        """Only the last message of an event has its id: who loses the connection between two gets both again."""
        if seq <= self._after:
            return b""
        return self._whole(message, seq) if is_last else b"data: %b\n\n" % encode(message)

    def beat(self, message: Json, seq: int) -> bytes:
        """What no event came with, whether the client has the last one or not."""
        return self._whole(message, seq)

    def _whole(self, message: Json, seq: int) -> bytes:
        return b"id: %b.%d\ndata: %b\n\n" % (self._name, seq, encode(message))

    def result(self, result: Json, seq: int, kind: str = "complete") -> bytes:  # noqa: ARG002 - of the other era
        """The response, which is sent again to a client that asks again."""
        return self._whole(response(self._request_id, result), seq)

    def error(self, error: Json, seq: int) -> bytes:
        return self._whole(error_response(self._request_id, error), seq)

    def ask(self, requests: Mapping[str, Json], seq: int) -> bytes:
        """A request of ours for each question, whether the client has had it or not: it is still open. Its id says
        which question the client's response answers."""
        named = ((f"{self._execution_id}/{input_id}", request) for input_id, request in requests.items())
        return b"".join([self._whole({"jsonrpc": "2.0", "id": id_, **request}, seq) for id_, request in named])

    def pause(self) -> bytes:
        return b"retry: %d\n\n" % RETRY_MS
