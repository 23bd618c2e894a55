"""Who may ask: tokens in the catalog, made, listed and revoked. Only hashes are kept."""

from datetime import datetime

from msgspec.structs import replace

from holdfast.core.protocols import Transaction
from holdfast.core.records import Token
from holdfast.errors import Conflict, HoldfastError, NotFound
from holdfast.security.identity import ROLES, Role, matches, new_token

EVERYWHERE = "*"
"""Tokens belong to a state, not to one of its systems."""


def make_token(tx: Transaction, name: str, role: str, *, now: datetime, by: str) -> str:
    """A new token; returns its secret, which is shown this once. Raises Conflict where the name is taken."""
    if role not in ROLES:
        raise HoldfastError(f"no role '{role}'; give --role {' or --role '.join(ROLES)}")
    if not (0 < len(name) <= 64 and name.isprintable()):
        raise HoldfastError("the name of a token is 1 to 64 printable characters")
    if any(token.name == name for token in tokens(tx)):
        raise Conflict(f"a token '{name}' is active already; revoke it first, or choose another name")
    secret, sha256 = new_token()
    chosen: Role = "admin" if role == "admin" else "client"
    token = Token(
        system=EVERYWHERE, id=tx.next_id(Token, EVERYWHERE, "tok-"), state="active", name=name, role=chosen,
        sha256=sha256, at=now,
    )  # fmt: skip
    tx.put(token)
    _audit(tx, token, "token made", now, by)
    return secret


def revoke_token(tx: Transaction, name: str, *, now: datetime, by: str) -> Token:
    """End a token. Raises NotFound, or Conflict for the last admin token: without one nothing would be protected."""
    active = tokens(tx)
    found = next((token for token in active if name in (token.name, token.id)), None)
    if found is None:
        raise NotFound("active token", name, [token.name for token in active])
    if found.role == "admin" and sum(token.role == "admin" for token in active) == 1:
        raise Conflict(f"'{found.name}' is the last admin token; make another one before you revoke it")
    revoked = replace(found, state="revoked")
    tx.put(revoked)
    _audit(tx, revoked, "token revoked", now, by)
    return revoked


def tokens(tx: Transaction) -> list[Token]:
    """The active tokens."""
    return tx.find(Token, EVERYWHERE, state=("active",))


def holder(tx: Transaction, secret: str) -> Token | None:
    """The active token of a secret; every hash is compared, so the time taken does not tell which one is near."""
    found = [token for token in tokens(tx) if matches(secret, token.sha256)]
    return found[0] if found else None


def _audit(tx: Transaction, token: Token, action: str, now: datetime, by: str) -> None:
    detail = {"name": token.name, "role": token.role}
    tx.audit(at=now, actor=by, action=action, system=EVERYWHERE, subject=token.id, detail=detail)
