"""Serves gRPC on an inherited listening socket, until it is told to stop."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

from holdfast.core.clock import stopwatch_s
from holdfast.observe.statistics import Statistics
from holdfast.serve.access import Access
from holdfast.serve.batching import Batcher
from holdfast.serve.dataplane import DataPlane
from holdfast.wire.bodies import Bodies
from holdfast.wire.grpc import InferenceService
from holdfast.wire.grpccalls import CallHead
from holdfast.wire.http2 import Connection
from holdfast.wire.http2limits import Limits
from holdfast.wire.tls import HANDSHAKE_S

SWEEP_S = 1.0
"""How often the time limits of the connections are looked at."""
_AT_A_TIME = 200


class GrpcServer:
    """The connections of one listening socket. Owned by one event loop."""

    def __init__(self, service: InferenceService, limits: Limits | None = None) -> None:
        self.service = service
        self._limits = limits or Limits()
        self._connections: set[Connection[CallHead]] = set()
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._is_empty = asyncio.Event()
        self._stopping_s = 0.0

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    async def start(self, listening: socket.socket, encrypted: ssl.SSLContext | None = None) -> None:
        """Take connections from now on, `encrypted` where that is given."""
        self._server = await asyncio.get_running_loop().create_server(
            self._connection,
            sock=listening,
            ssl=encrypted,
            ssl_handshake_timeout=None if encrypted is None else HANDSHAKE_S,
        )
        self._sweeping = asyncio.create_task(self._sweep())

    def begin_stop(self) -> None:
        """Take no more connections and calls, and close each connection once its calls are answered."""
        if self.service.is_stopping:
            return
        self.service.is_stopping = True
        self._stopping_s = stopwatch_s()
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.stop()

    async def stop(self, within_s: float) -> None:
        """Stop, and wait until every call that was taken is answered; abort what is open `within_s` after the begin."""
        self.begin_stop()
        if self._connections:
            self._is_empty.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_empty.wait(), max(0.0, self._stopping_s + within_s - stopwatch_s()))
        for connection in list(self._connections):
            connection.abort()
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)

    def _connection(self) -> Connection[CallHead]:
        connection = Connection(self.service, self._limits, stopwatch_s(), self._closed)
        self._connections.add(connection)
        return connection

    def _closed(self, connection: Connection[CallHead]) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._is_empty.set()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now_s = stopwatch_s()
            for place, connection in enumerate(list(self._connections)):
                connection.sweep(now_s)
                if place % _AT_A_TIME == _AT_A_TIME - 1:
                    await asyncio.sleep(0)  # thousands of idle connections must not hold up a request
            self.service.look()


def grpc_server(
    plane: DataPlane,
    batcher: Batcher,
    access: Access,
    new_id: Callable[[], str],
    statistics: Callable[[str, str], Statistics],
    bodies: Bodies | None = None,
) -> GrpcServer:
    """gRPC beside HTTP in one worker: batches and the bound of what is held are shared, and who may ask is decided in
    one place."""
    return GrpcServer(InferenceService(plane, batcher, access, new_id, statistics, bodies))
