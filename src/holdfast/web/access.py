"""Who may enter the console: a token in a header, or once in the link and from then on in a cookie.

Plain ASGI around the application, so that nothing behind it is reached without a token, whatever its path.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

import msgspec

from holdfast.core.records import Token
from holdfast.errors import HoldfastError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Who = Callable[[str], Token | None]
"""The active token of a secret."""

PERSON = "holdfast.person"
"""Where the name of the token stands in the scope of a request."""
COOKIE = "holdfast"
COOKIE_S = 30 * 24 * 3600
LOOKING = ("GET", "HEAD")
HEADERS = (
    (b"content-security-policy", b"default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
     b"form-action 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)  # fmt: skip
"""Sent with every answer."""


class Access:
    """Lets requests with a token through. Only admins may change things; a cookie serves for looking only."""

    def __init__(self, app: App, who: Who) -> None:
        self._app = app
        self._who = who

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        try:
            await self._enter(scope, receive, guarded)
        except HoldfastError as error:
            await _say(guarded, 503, str(error))

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        linked = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        is_looking = scope["method"] in LOOKING
        if linked and is_looking and await self._token(linked):
            # From here on the secret is in a cookie and no longer in the address.
            cookie = f"{COOKIE}={linked}; Path=/; Max-Age={COOKIE_S}; HttpOnly; SameSite=Strict"
            await _say(send, 303, "", [(b"location", scope["path"].encode()), (b"set-cookie", cookie.encode())])
            return
        token = await self._token(_bearer(scope) or (_cookie(scope) if is_looking else ""))
        if token is None:
            message = "a valid token is needed: Authorization: Bearer hf_..., or the link that `holdfast up` printed"
            await _say(send, 401, message, [(b"www-authenticate", b"Bearer")])
        elif token.role != "admin" and not is_looking:
            await _say(send, 403, f"token '{token.name}' has the role {token.role}; only an admin may change things")
        else:
            scope[PERSON] = token.name
            await self._app(scope, receive, send)

    async def _token(self, secret: str) -> Token | None:
        return await asyncio.to_thread(self._who, secret) if secret else None


def _bearer(scope: Scope) -> str:
    scheme, _, secret = _header(scope, b"authorization").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def _cookie(scope: Scope) -> str:
    try:
        cookies: SimpleCookie = SimpleCookie(_header(scope, b"cookie"))
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


async def _say(send: Send, status: int, message: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    body = msgspec.json.encode({"error": message}) if message else b""
    start = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})
