from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from redis.asyncio import Redis

from broker.auth.claims import SCOPES
from broker.base.reasons import CloseReason
from broker.base.settings import Settings
from broker.edge.edge import Edge
from broker.edge.openapi import build_openapi
from broker.executions import types
from broker.executions.control_types import CONTROL_EVENTS
from broker.protocols.a2a.card import PATHS
from broker.protocols.mcp.versions import METADATA
from emitter import events
from tests.edges import SECRET

GOLDEN = Path(__file__).parents[2] / "golden"
PAGES = {"/console/sign-in.json", "/", "/{name}"}
"""What a browser loads: the console and the client."""
OURS = {
    "POST /api/agent/chat": "ChatRequest",
    "POST /api/agent/chat/{chatId}/stop": "CancelRequest",
    "POST /ag-ui": "RunAgentInput",
    "POST /ag-ui/{name}": "RunAgentInput",
    "POST /a2a": "A2aRpcRequest",
    "POST /a2a/message:send": "A2aSendRequest",
    "POST /a2a/{agent}/message:stream": "A2aSendRequest",
}
UNASKED = {"/openapi.json", *PATHS, *("/a2a/{agent}" + path for path in PATHS), METADATA, METADATA + "/mcp"}
"""For everybody."""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build_openapi("1.2.3")


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(child)


def resolve(document: dict[str, Any], ref: str) -> Any:
    found: Any = document
    for part in ref.removeprefix("#/").split("/"):
        found = found[part]
    return found


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def test_is_json(document: dict[str, Any]) -> None:
    """The description is plain JSON and carries its version."""
    assert msgspec.json.decode(msgspec.json.encode(document)) == document
    assert (document["openapi"], document["info"]["version"]) == ("3.1.0", "1.2.3")


def test_it_is_openapi(document: dict[str, Any]) -> None:
    """The description is valid by the schema of OpenAPI 3.1 (`$id` says which), and its schemas are JSON Schema."""
    schema = msgspec.json.decode((GOLDEN / "openapi-3.1.schema.json").read_bytes())
    assert [error.message for error in Draft202012Validator(schema).iter_errors(document)] == []
    for component in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(component)


def test_operation_ids(document: dict[str, Any]) -> None:
    """Every operation has an id of its own, and no two paths differ only in what their parameters are called."""
    found = operations(document)
    assert len({operation["operationId"] for operation in found.values()}) == len(found)
    assert len({re.sub(r"{\w+}", "{}", path) for path in document["paths"]}) == len(document["paths"])


async def test_routes_and_description_agree(document: dict[str, Any], redis: Redis, redis_url: str) -> None:
    """Every route of an edge is described, but for pages and last slashes, and everything described is a route."""
    settings = Settings(redis_url=redis_url, host="127.0.0.1", port=0, admin_host="127.0.0.1", admin_port=0,
                        jwt_secret=SECRET, drain_seconds=0)  # fmt: skip
    async with Edge(settings) as edge:
        routes = list(edge._app()[0].router.routes())
    served = {(route.method, route.resource.canonical) for route in routes if route.resource is not None}
    assert ("HEAD", "/") in served
    served = {f"{method} {path.rstrip('/')}" for method, path in served if method != "HEAD" and path not in PAGES}
    assert served == set(operations(document))


def test_references(document: dict[str, Any]) -> None:
    """Every reference leads somewhere, and every component is used."""
    refs = {node["$ref"] for node in nodes(document) if "$ref" in node}
    assert all(resolve(document, ref) for ref in refs)
    for kind in ("schemas", "parameters", "headers", "responses"):
        unused = {f"#/components/{kind}/{name}" for name in document["components"][kind]} - refs
        assert unused == set(), kind


def test_what_generators_of_clients_misread(document: dict[str, Any]) -> None:
    """No member has a default, which some take for always there: `POST /api/agent/execute {task}` would be refused by
    a type checker. An object may hold anything, unless its members are named. Names have no dots, titles are unequal.
    What is always there says so."""
    schemas = document["components"]["schemas"]
    for node in nodes(schemas):
        assert "default" not in node
        assert node.get("type") != "object" or {"properties", "additionalProperties"} & node.keys(), node
    assert not [name for name in schemas if not re.fullmatch(r"\w+", name)]
    titles = [schema["title"] for schema in schemas.values() if "title" in schema]
    assert len(titles) == len(set(titles))
    assert schemas["ExecuteRequest"]["required"] == ["task"]
    assert set(schemas["ExecutionState"]["required"]) == set(schemas["ExecutionState"]["properties"])


def test_path_parameters(document: dict[str, Any]) -> None:
    """Every operation declares exactly the parameters that its path has."""
    for name, operation in operations(document).items():
        declared = {each["name"] for each in operation.get("parameters", ()) if each.get("in") == "path"}
        assert declared == set(re.findall(r"{(\w+)}", name)), name


def test_what_workers_over_http_send(document: dict[str, Any]) -> None:
    """Where a worker writes or reads under its attempt, the headers for that are described."""
    for path in ("/events", "/messages/take"):
        operation = document["paths"]["/api/agent/executions/{id}" + path]["post"]
        assert {"Attempt", "Fence"} <= {each.get("name") for each in operation["parameters"]}


def test_every_event(document: dict[str, Any]) -> None:
    """Every type of the catalogue is an alternative of `Event`, told apart by its type; plug-ins by a pattern."""
    event = document["components"]["schemas"]["Event"]
    alternatives = [resolve(document, each["$ref"]) for each in event["oneOf"]]
    assert [each["properties"]["type"].get("const") for each in alternatives] == [*events.BY_TYPE, None]
    assert re.match(alternatives[-1]["properties"]["type"]["pattern"], "custom:acme.preview")
    mapping = event["discriminator"]["mapping"]
    assert {resolve(document, ref)["properties"]["type"]["const"]: type_ for type_, ref in mapping.items()} == {
        type_: type_ for type_ in events.BY_TYPE
    }


def check(document: dict[str, Any], schema: dict[str, Any], value: dict[str, Any], at: str) -> None:
    """Names that must be there are, and no others are than those described."""
    schema = resolve(document, schema["$ref"]) if "$ref" in schema else schema
    if "properties" in schema:
        assert set(value) <= set(schema["properties"]), at
        assert set(schema.get("required", ())) <= set(value), at
        for name, child in value.items():
            if isinstance(child, dict):
                check(document, schema["properties"][name], child, f"{at}.{name}")


@pytest.mark.parametrize("name", ["every_event", "failed", "cancelled"])
def test_recorded_events_fit(document: dict[str, Any], name: str) -> None:
    """Recorded events have the members that are described for their types, and their states those of the state."""
    mapping = document["components"]["schemas"]["Event"]["discriminator"]["mapping"]
    lines = (GOLDEN / f"{name}.jsonl").read_bytes().splitlines()
    for line in lines:
        event = msgspec.json.decode(line)["event"]
        ref = mapping.get(event["type"], "#/components/schemas/CustomEvent")
        check(document, {"$ref": ref}, event, event["type"])
    state = msgspec.json.decode((GOLDEN / f"state_{name}.json").read_bytes())
    check(document, {"$ref": "#/components/schemas/ExecutionState"}, state, "state")


def test_streams(document: dict[str, Any]) -> None:
    """A stream's description has the control events, every close reason, its parameters, and tickets."""
    operation = operations(document)["GET /api/agent/executions/{id}/stream"]
    sent = operation["responses"]["200"]["content"]["text/event-stream"]["x-sse-events"]
    assert set(sent) == {*events.BY_TYPE, *CONTROL_EVENTS, "custom:*"}
    end = resolve(document, sent["stream:end"]["$ref"])
    assert end["properties"]["reason"]["enum"] == list(CloseReason)
    parameters = {each["$ref"].rsplit("/", 1)[1] for each in operation["parameters"] if "$ref" in each}
    assert parameters >= {"Last-Event-ID", "lastEventId", "from", "types", "named", "heartbeat"}
    assert {"ticket": ["executions:read"]} in operation["security"]
    assert "204" in operation["responses"]


def test_security_and_errors(document: dict[str, Any]) -> None:
    """Every operation but the description itself and cards needs a known scope and says how it refuses, as a
    problem."""
    schemes = set(document["components"]["securitySchemes"])
    for name, operation in operations(document).items():
        if name.removeprefix("GET ") in UNASKED:
            assert operation["security"] == []
            continue
        assert all(set(each) <= schemes for each in operation["security"])
        assert {scope for each in operation["security"] for scopes in each.values() for scope in scopes} < set(SCOPES)
        assert {"401", "403", "429", "503"} <= set(operation["responses"])
    for response in document["components"]["responses"].values():
        assert list(response["content"]) == ["application/problem+json"]


def test_other_protocols(document: dict[str, Any]) -> None:
    """What another protocol's specification defines is described with the place where it is; what is ours, in full."""
    found = operations(document)
    foreign = {
        name for name, each in found.items() if each["tags"][0] in ("ai-sdk", "ag-ui", "a2a", "mcp", "durable-streams")
    }
    assert {name for name in found if re.search("a2a|ag-ui|mcp|/chat|well-known| /agent/| /ds/", name)} == foreign
    told = {name for name in foreign if found[name].get("externalDocs", {}).get("url", "").startswith("https://")}
    assert foreign - told == {"POST /api/agent/chat/{chatId}/stop"}
    bodies = {name: found[name]["requestBody"]["content"]["application/json"]["schema"]["$ref"] for name in OURS}
    assert {name: ref.rsplit("/", 1)[1] for name, ref in bodies.items()} == OURS
    schemas = document["components"]["schemas"]
    assert {"id", "messages", "message", "agent"} <= set(schemas["ChatRequest"]["properties"])
    assert set(schemas["RunAgentInput"]["required"]) == {"threadId", "runId", "messages"}
    assert {"message/stream", "SubscribeToTask"} < set(schemas["A2aRpcRequest"]["properties"]["method"]["enum"])
    ticket = [{"ticket": ["executions:read"]}]
    assert [each for each in found["GET /a2a/stream"]["security"] if "ticket" in each] == ticket


def test_requests_are_strict(document: dict[str, Any]) -> None:
    """Requests refuse unknown fields, in the description as in the decoder, and what is over a limit."""
    for name in ("ExecuteRequest", "CancelRequest", "InputRequest", "TicketRequest", "RevocationRequest"):
        assert document["components"]["schemas"][name]["additionalProperties"] is False
    decode = msgspec.json.Decoder(types.ExecuteRequest).decode
    assert decode(b'{"task":"t","onDisconnect":{"cancelAfterSeconds":30}}').on_disconnect is not None
    bodies = (b'{"task":""}', b'{"task":"t","agnet":"a"}', b'{"task":"t","executionId":"a:b"}', b'{"task":"t\\ud800"}')
    for body in (*bodies, msgspec.json.encode({"task": "x" * (types.MAX_TASK + 1)})):
        with pytest.raises(msgspec.DecodeError):
            decode(body)


@pytest.mark.parametrize("body", [b"{}", b'{"jti":"a","user":"b"}', b'{"user":""}', b'{"user":"a","expiresAt":1}'])
def test_revocations_name_one_thing(body: bytes) -> None:
    """A revocation names a token or a user, not both and not neither."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=types.RevocationRequest)
