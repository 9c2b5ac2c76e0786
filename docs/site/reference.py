"""Writes `docs/reference` from the code: `python docs/site/reference.py [FOLDER]`.

Each page is one function below, which reads what the code itself uses: the event catalogue, the description of the HTTP
interface, the settings, the registries of metrics, the alert rules and the parsers of the commands.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml
from prometheus_client import CollectorRegistry

from broker.base.metrics import Metrics
from broker.base.settings import settings_table
from broker.cli.main import _parser as commands_parser
from broker.edge.openapi import build_openapi
from broker.executions.control_types import CONTROL_EVENTS
from broker.executions.publish import NOT_PUBLISHED
from broker.ops.redis_metrics import COUNTERS, GAUGES
from emitter.__main__ import _parser as worker_parser
from emitter.events import CATALOGUE, TERMINAL_STATE_OF
from emitter.settings import SharedSettings, settings_of
from emitter.wire.envelope import in_feed
from emitter.worker.metrics import Metrics as WorkerMetrics

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reference"
NOTE = "\n<!-- Made by `python docs/site/reference.py`. Do not edit. -->\n"
TITLES = {
    "durable-streams": "Durable Streams",
    "responses": "OpenAI Responses",
    "ai-sdk": "AI SDK",
    "ag-ui": "AG-UI",
    "a2a": "A2A",
    "mcp": "MCP",
}
HTTP_METHODS = ("get", "post", "put", "patch", "delete")


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head)]
    lines += [["---"] * len(lines[0]), *([cell(each) for each in row] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def about(thing: type) -> str:
    """Its own docstring, as one paragraph."""
    return " ".join(inspect.cleandoc(vars(thing).get("__doc__") or "").split())


# --- events ---------------------------------------------------------------------------------------------------------


def shape(schema: dict[str, Any], parts: dict[str, Any]) -> str:
    """A JSON Schema in a few words: `string`, `{id: string, name: string}`, `"queue"` or `"interrupt"`."""
    if "$ref" in schema:
        return shape(parts[schema["$ref"].rpartition("/")[2]], parts)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(shape(each, parts) for each in schema["anyOf"] if each.get("type") != "null"))
    if "enum" in schema or "const" in schema:
        return " or ".join(f'"{each}"' for each in schema.get("enum", [schema.get("const")]) if each is not None)
    match schema.get("type"):
        case "array":
            return f"list of {shape(schema['items'], parts)}" if schema.get("items") else "list"
        case "object" if schema.get("properties"):
            required = schema.get("required", [])
            members = (
                f"{name}{'' if name in required else '?'}: {shape(each, parts)}"
                for name, each in schema["properties"].items()
            )
            return "{" + ", ".join(members) + "}"
        case None:
            return "any JSON"
        case kind:
            return str(kind)


def fields_of(struct: type) -> str:
    (schema,), parts = msgspec.json.schema_components([struct], ref_template="#/{name}")
    own = parts[schema["$ref"].rpartition("/")[2]]
    required = own.get("required", [])
    rows = [
        (f"`{name}`", shape(each, parts), "" if name in required else "optional", each.get("description", ""))
        for name, each in own.get("properties", {}).items()
    ]
    return table(("field", "value", "", ""), rows) if rows else "No fields.\n"


def camel(name: str) -> str:
    return re.sub(r"[:_](\w)", lambda letter: letter[1].upper(), name)


def events() -> str:
    made = [
        "# Events\n\nEvery event is one JSON object: `type`, `executionId`, `ts` (ms, the emitter's clock) and `data`, "
        "whose fields are below. Optional are `requestId`, `agent` (which agent or specialist speaks), `parentId` (the "
        "call it speaks in) and `traceparent`. In a stream its `id` is `<ms>-<seq>`: Redis time of the append, and the "
        "event's ordinal in its log, from 1 and without a gap.\n\nAn emitter has a method for each type: `a:b` is "
        "`a_b(…)` in Python, with fields in snake_case, and `aB({…})` in JavaScript. `GET /openapi.json` has the JSON "
        "Schemas; `runcast openapi --typescript` prints them as TypeScript.\n\n"
    ]
    made += ["| type | method | in the feed | ends the execution |\n|---|---|---|---|\n"]
    for event in CATALOGUE:
        name = event.type.replace(":", "_")
        method = "" if event.type in NOT_PUBLISHED else f"`{name}`"
        state = TERMINAL_STATE_OF.get(event.type)
        link = re.sub(r"[^\w\- ]", "", event.type)
        made.append(
            f"| [`{event.type}`](#{link}) | {method} | {'yes' if in_feed(event.type) else ''} | "
            f"{f'`{state}`' if state else ''} |\n"
        )
    made.append("| `custom:<name>` | `custom` | yes | |\n\n`custom(name, data)` is for events of your own: `<name>` has "
                "1 to 64 of `a-z 0-9 _ . -`, `data` is any object.\n")  # fmt: skip
    for event in CATALOGUE:
        made.append(f"\n## {event.type}\n\n")
        if text := about(event):
            made.append(text + "\n\n")
        if why := NOT_PUBLISHED.get(event.type):
            made.append(f"It cannot be published: {why}.\n\n")
        made.append(fields_of(event))
    made.append(
        "\n## Events of a stream\n\nThey are about the stream and are not in the log. None but `stream:cursor` has an `id`.\n"
    )
    for name, control in CONTROL_EVENTS.items():
        made.append(f"\n### {name}\n\n{about(control)}\n\n{fields_of(control)}")
    return "".join(made)


# --- endpoints -------------------------------------------------------------------------------------------------------


def endpoints() -> str:
    described = build_openapi("0")
    rows: dict[str, list[tuple[str, str, str, str]]] = {tag["name"]: [] for tag in described["tags"]}
    for path, operations in described["paths"].items():
        if re.match(r"/a2a/(\{agent\}|v1)(/|$)", path):
            continue
        for method in HTTP_METHODS:
            if method in operations:
                each = operations[method]
                rows[each["tags"][0]].append(_endpoint(method, path, each, described))
    made = [
        "# Endpoints\n\nA request needs a token with the scope in the table ([tokens](../run/tokens.md)); `admin` may name "
        "another user with `?user=` and `?org=`. Errors are `application/problem+json` (RFC 9457) with `type`, `title`, "
        "`status`, `detail` and `requestId`; 429 and 503 have `Retry-After`. `GET /openapi.json` describes every body. "
        "An edge's admin port has `/metrics`, `/healthz` and `/readyz`.\n"
    ]
    for tag, found in rows.items():
        made.append(f"\n## {TITLES.get(tag, tag.capitalize())}\n\n")
        if tag == "a2a":
            made.append("The same is at `/a2a/{agent}`, for one agent, and at `/a2a/v1`, as in 0.3.\n\n")
        made.append(table(("request", "does", "parameters", "scope", "success"), found))
    return "".join(made)


def _endpoint(method: str, path: str, each: dict[str, Any], described: dict[str, Any]) -> tuple[str, ...]:
    parameters = []
    for given in each.get("parameters", []):
        if "$ref" in given:
            given = described["components"]["parameters"][given["$ref"].rpartition("/")[2]]
        if given["in"] != "path" and given["name"] not in ("user", "org"):
            parameters.append(f"`{given['name']}`")
    scope = next((scopes[0] for way in each.get("security", []) for scopes in way.values() if scopes), "")
    successes = [status for status in each["responses"] if status < "4"]
    return (
        f"`{method.upper()} {path}`",
        each.get("summary", ""),
        ", ".join(parameters),
        f"`{scope}`" if scope else "none",
        ", ".join(successes),
    )


# --- settings, metrics, alerts ---------------------------------------------------------------------------------------


def settings() -> str:
    shared = [setting.variable for setting in settings_of(SharedSettings).values()]
    return (
        "# Settings\n\nSettings are environment variables. A bad value stops the start; the message has the name, the "
        "value and what is allowed. Edges read all of them, workers those from "
        f"`{shared[0]}` to `{shared[-1]}`. `runcast settings` checks and lists them with their present values. "
        "0 switches a limit off where the table says so.\n\n" + settings_table()
    )


def _families(registry: CollectorRegistry) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, labels with their values, help; of what Runcast counts itself."""
    for family in registry.collect():
        if not family.name.startswith("runcast_"):
            continue
        labels: dict[str, dict[str, None]] = {}
        for sample in family.samples:
            for name, value in sample.labels.items():
                if name != "le":
                    labels.setdefault(name, {})[value] = None
        said = "; ".join(f"`{name}`: {', '.join(values)}" for name, values in labels.items())
        suffix = "_total" if family.type == "counter" else ""
        yield f"`{family.name}{suffix}`", family.type, said, family.documentation


def metrics() -> str:
    head = ("metric", "type", "labels", "meaning")
    redis = [
        *((f"`runcast_redis_{fact.name}`", "gauge", "`node`", fact.help) for fact in GAUGES),
        *((f"`runcast_redis_{fact.name}_total`", "counter", "`node`", fact.help) for fact in COUNTERS),
    ]
    return (
        "# Metrics\n\nEdges export them on `RUNCAST_ADMIN_PORT`, workers on `RUNCAST_WORKER_ADMIN_PORT`, at `/metrics`, "
        "beside those of the process and of Python. Label values are closed sets: no user, execution or address is one. "
        "[deploy/prometheus](../../deploy/prometheus) has scraping and rules, [deploy/grafana](../../deploy/grafana) "
        "dashboards.\n\n## Edges\n\n"
        + table(head, _families(Metrics("VERSION").registry))
        + "\n## Redis, as an edge sees it\n\n"
        + table(head, redis)
        + "\n## Workers\n\n"
        + table(head, _families(WorkerMetrics(["AGENT"], "VERSION").registry))
    )


def filled(text: str) -> str:
    """An alert's text with the names of labels in their places, and an ellipsis for its value."""
    return re.sub(r"\{\{.*?\}\}", "…", re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"*\1*", text))


def alerts() -> str:
    made = [
        "# Alerts\n\nThe rules are in [deploy/prometheus](../../deploy/prometheus); each links to its "
        "[runbook](../run/runbooks.md). `critical` wakes somebody, `warning` waits for the morning.\n"
    ]
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules" / "alerts.yml").read_text())
    for group in rules["groups"]:
        rows = []
        for rule in group["rules"]:
            notes = rule["annotations"]
            runbook = notes["runbook"].replace("docs/", "../", 1)
            meaning = filled(f"{notes['summary']}. {notes['description']}")
            rows.append((
                f"`{rule['alert']}`", rule["labels"]["severity"], str(rule.get("for", "at once")),
                meaning, f"[runbook]({runbook})",
            ))  # fmt: skip
        made.append(f"\n## {group['name']}\n\n" + table(("alert", "severity", "for", "meaning", ""), rows))
    return "".join(made)


# --- commands --------------------------------------------------------------------------------------------------------


def _arguments(parser: argparse.ArgumentParser) -> str:
    rows = []
    for action in parser._actions:
        if action.dest == "help" or isinstance(action, argparse._SubParsersAction):
            continue
        metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        takes = "" if action.nargs == 0 or not action.option_strings else f" {metavar}"
        name = ", ".join(action.option_strings) or metavar
        optional = " (optional)" if action.nargs == "?" else ""
        rows.append((f"`{name}{takes}`{optional}", (action.help or "").replace("%%", "%")))
    return table(("argument", "meaning"), rows) if rows else ""


def commands() -> str:
    parser = commands_parser()
    choices = next(each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    helps = {each.dest: each.help or "" for each in choices._choices_actions}
    made = [
        "# Command line\n\nThe exit status is 0 for success, 1 if something failed, 2 if the command or a setting was "
        "wrong. Commands that speak to an edge take its address from `RUNCAST_URL` and your token from "
        "`RUNCAST_TOKEN`. `runcast worker` needs `pip install runcast`, the others `runcast[broker]`, and `demo` and `dev` "
        "`runcast[broker,embedded]`.\n"
    ]
    for name, each in choices.choices.items():
        if name not in helps:  # for `serve` alone
            continue
        listed = _arguments(worker_parser() if name == "worker" else each)
        made.append(
            f"\n## runcast {name}\n\n{helps[name][:1].upper()}{helps[name][1:]}.\n{listed and chr(10) + listed}"
        )
    return "".join(made)


PAGES: dict[str, Callable[[], str]] = {
    "events.md": events,
    "endpoints.md": endpoints,
    "settings.md": settings,
    "metrics.md": metrics,
    "alerts.md": alerts,
    "cli.md": commands,
}

if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for page, make in PAGES.items():
        (target / page).write_text(make().rstrip() + "\n" + NOTE)
