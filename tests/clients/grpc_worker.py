"""Serves the small world of the serving tests over gRPC. Argument: the inherited socket."""

import asyncio
import os
import signal
import socket
import sys

import uvloop

from holdfast.core.clock import SystemClock
from holdfast.observe.statistics import statistics
from holdfast.serve.access import Access
from holdfast.serve.batching import Batcher
from holdfast.serve.ids import request_ids
from holdfast.testing.serving import World
from holdfast.wire.grpcserver import grpc_server


async def main(fd: int) -> None:
    world = World()
    world.serve()
    new_id = request_ids(SystemClock(), os.urandom)
    server = grpc_server(
        world.plane,
        Batcher(world.plane),
        Access(),
        new_id,
        lambda system, version: statistics([], world.plane.in_force.versions(), system, version),
    )
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await server.start(socket.socket(fileno=fd))
    print("ready", flush=True)
    await stopping.wait()
    await server.stop(within_s=5)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
