"""The console as one ASGI application: the page, the API, and the access to both."""

import re
from collections.abc import Callable
from threading import Lock
from typing import Any

from litestar import Litestar, MediaType, Request, Response
from litestar.exceptions import HTTPException

from holdfast.core.clock import Clock
from holdfast.core.records import Token
from holdfast.errors import Conflict, HoldfastError, InvalidInput, NotFound, StateError, did_you_mean
from holdfast.state import State
from holdfast.tokens import holder
from holdfast.views import Status, Views
from holdfast.web.access import Access
from holdfast.web.api import RollbackAsked, api_routes
from holdfast.web.page import page_routes

STATUS = {NotFound: 404, Conflict: 409, InvalidInput: 422, StateError: 503}
"""What an error is told as; anything else that is raised on purpose is 400."""
_UNKNOWN_FIELD = re.compile(r"unknown field `(.+?)`")


def make_app(state: State, clock: Clock) -> Access:
    """The application over a state."""
    status = _one_at_a_time(Views(state, clock))

    def who(secret: str) -> Token | None:
        with state.catalog.read() as tx:
            return holder(tx, secret)

    app = Litestar(
        route_handlers=[*page_routes(state, status), *api_routes(state, clock, status)],
        exception_handlers={HoldfastError: _told, HTTPException: _refused, RecursionError: _too_deep},
        openapi_config=None,
        logging_config=None,
    )
    return Access(app, who)  # type: ignore[arg-type]


def _one_at_a_time(views: Views) -> Callable[[str], Status]:
    lock = Lock()

    def status(system: str) -> Status:
        with lock:
            return views.status(system)

    return status


def _told(request: Request[Any, Any, Any], error: HoldfastError) -> Response[dict[str, str]]:
    code = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 400)
    return Response({"error": str(error)}, status_code=code, media_type=MediaType.JSON)


def _too_deep(request: Request[Any, Any, Any], error: RecursionError) -> Response[dict[str, str]]:
    return Response({"error": "the body is nested too deeply"}, status_code=400, media_type=MediaType.JSON)


def _refused(request: Request[Any, Any, Any], error: HTTPException) -> Response[dict[str, str]]:
    message = error.detail
    if error.status_code == 404:
        message = f"nothing is at {request.url.path}; see GET /api/status"
    if isinstance(error.extra, list) and error.extra:
        message = "; ".join(": ".join(filter(None, [each.get("key"), each.get("message")])) for each in error.extra)
        if found := _UNKNOWN_FIELD.search(message):  # a rollback is all that has a body
            message += did_you_mean(found[1], RollbackAsked.__struct_fields__)
    return Response({"error": message}, status_code=error.status_code, media_type=MediaType.JSON)
