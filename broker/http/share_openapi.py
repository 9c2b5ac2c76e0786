"""The description of the interface to share links."""

from __future__ import annotations

import msgspec

from broker.executions import share_types as api
from broker.http.openapi_parts import ID, JSON, Json, ok, operation, parameter

BODIES: tuple[type[msgspec.Struct], ...] = (api.ShareRequest, api.ShareResponse, api.ShareInfo, api.ShareList)
_SHARE = parameter("share", "path", "id of the share", type="string", pattern=api.SHARE_ID)


def paths(execution: str) -> Json:
    """The paths below that of an execution."""
    return {
        execution + "/shares": {
            "post": operation(
                "createShare",
                "A link that shows this execution, and nothing else, to whoever has it, for a while",
                "executions:write",
                ok(201, "Its token is a bearer token, and is shown this once.", {JSON: "ShareResponse"}),
                parameters=(ID,),
                body={JSON: "ShareRequest"},
                body_required=False,
                errors=(404, 409),
            ),
            "get": operation(
                "listShares",
                "The links to this execution that still work",
                "executions:read",
                ok(200, "Oldest first, without their tokens.", {JSON: "ShareList"}),
                parameters=(ID,),
                errors=(404,),
            ),
        },
        execution + "/shares/{share}": {
            "delete": operation(
                "revokeShare",
                "End a link, and the streams that were opened with it",
                "executions:write",
                {"204": {"description": "It is revoked."}},
                parameters=(ID, _SHARE),
                errors=(404,),
            )
        },
    }
