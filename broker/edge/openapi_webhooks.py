"""Webhooks in the description of the HTTP interface."""

from __future__ import annotations

from broker.executions.hooked import WebhookList
from broker.http.openapi_parts import ID, JSON, Json, ok, operation

__all__ = ["WebhookList", "list_webhooks"]


def list_webhooks() -> Json:
    return operation(
        "listWebhooks",
        "The webhooks of an execution, and what became of them",
        "executions:read",
        ok(200, "Without what is secret of them.", {JSON: "WebhookList"}),
        parameters=(ID,),
        errors=(404,),
    )
