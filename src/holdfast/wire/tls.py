"""TLS of the ports: one certificate and its key, read when a process starts."""

import ssl
from collections.abc import Sequence
from pathlib import Path

import msgspec

from holdfast.errors import StateError

HANDSHAKE_S = 10.0
"""How long a client of gRPC may take until the connection is encrypted. The servers of HTTP and of the console are
uvicorn's, which leaves this to the event loop: a minute."""


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files: the certificate with those that vouch for it, and its key without a password."""

    certificate: Path
    key: Path


def server_context(tls: Tls, protocols: Sequence[str]) -> ssl.SSLContext:
    """What a listening socket is encrypted with, TLS 1.2 or newer; `protocols` are what is spoken on it (ALPN).

    Raises StateError where the files do not go together or cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(protocols))
    try:
        context.load_cert_chain(tls.certificate, tls.key, password="")  # none is asked for on the terminal
    except (OSError, ValueError) as error:
        raise StateError(
            f"no TLS with the certificate {tls.certificate} and the key {tls.key}: {error}; give PEM files that belong "
            "together, the key without a password"
        ) from error
    return context
