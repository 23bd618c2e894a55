"""Serves the small world of the serving tests over gRPC. Arguments: inherited socket, file of that world."""

import asyncio
import importlib.util
import os
import signal
import socket
import sys

import uvloop

from holdfast.core.clock import SystemClock
from holdfast.serve.access import Access
from holdfast.serve.batching import Batcher
from holdfast.serve.grpcserver import grpc_server
from holdfast.serve.ids import request_ids
from holdfast.serve.statistics import statistics


async def main(fd: int, file: str) -> None:
    spec = importlib.util.spec_from_file_location("world", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    world = module.World()
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
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
