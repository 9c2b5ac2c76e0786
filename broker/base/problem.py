"""An error as clients see it: RFC 9457 `application/problem+json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

TYPE_PREFIX = "urn:runcast:problem:"


class Problem(Exception):
    """An answer that is not what the client asked for.

    `slug` names the kind of problem (`unauthorized`) and, after `TYPE_PREFIX`, is its `type`; `title` is the kind in
    words (made from the slug if not given); `detail` is about this one case. `extensions` become members of the body.
    """

    def __init__(
        self,
        status: int,
        slug: str,
        detail: str = "",
        *,
        title: str | None = None,
        headers: Mapping[str, str] | None = None,
        **extensions: Any,
    ) -> None:
        super().__init__(detail or slug)
        self.status = status
        self.slug = slug
        self.title = title or slug.replace("-", " ").capitalize()
        self.detail = detail
        self.headers = dict(headers or {})
        self.extensions = extensions

    def body(self, request_id: str) -> dict[str, Any]:
        """The members of the JSON object; the standard ones win over extensions of the same name."""
        standard = {"type": TYPE_PREFIX + self.slug, "title": self.title, "status": self.status}
        if self.detail:
            standard["detail"] = self.detail
        return {**self.extensions, **standard, "requestId": request_id}


def problem_response(problem: Problem, request_id: str) -> web.Response:
    return web.Response(
        status=problem.status,
        body=msgspec.json.encode(problem.body(request_id)),
        content_type="application/problem+json",
        headers={**problem.headers, "Cache-Control": "no-store"},
    )


def unsupported_coding() -> Problem:
    detail = "a body's Content-Encoding is gzip or deflate"
    return Problem(415, "unsupported-coding", detail, headers={"Accept-Encoding": "gzip, deflate"})


def retry_after(seconds: float) -> dict[str, str]:
    """The header, in whole seconds rounded up, at least one."""
    return {"Retry-After": str(max(1, -int(-seconds // 1)))}
