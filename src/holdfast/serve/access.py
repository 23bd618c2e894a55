"""Who may ask: the tokens of the routes, compared with what a request brings."""

import base64

from holdfast.core.routes import Routes, TokenHash
from holdfast.security.identity import matches

OPEN = TokenHash(sha256="", role="client", name="")
"""Stands for everyone where the routes carry no tokens."""
_MOST_KNOWN = 1024


def bearer(authorization: str) -> str:
    """The same, with the password of a Basic one as the token: a logger that takes no header takes it in its URL."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return authorization
    try:
        _, _, secret = base64.b64decode(encoded, validate=True).decode("latin-1").partition(":")
    except ValueError:  # no base64, or letters that are not of ASCII
        return ""
    return f"Bearer {secret}"


class Access:
    """Remembers which secrets were found good, until the routes change. Owned by one thread."""

    def __init__(self) -> None:
        self._routes: Routes | None = None
        self._known: dict[str, TokenHash] = {}

    def token(self, routes: Routes, authorization: str) -> TokenHash | None:
        """The token that an ``Authorization`` value names: its `name` is the caller. None where there is no such token.

        Without tokens in the routes everyone may ask, and `OPEN` is the answer.
        """
        if not routes.tokens:
            return OPEN
        if routes is not self._routes:  # tokens may have been revoked
            self._routes, self._known = routes, {}
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        found = self._known.get(secret)
        if found is None:
            # Every hash is compared, so the time taken does not tell which one is near.
            same = [token for token in routes.tokens if matches(secret, token.sha256)]
            if not same:
                return None
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[secret] = same[0]
        return found
