"""How much of requests a worker holds at a time."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.wire.bodies import Bodies, Held
from holdfast.wire.http import DataPlaneApp


@given(st.integers(0, 100), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60) | st.none())))
def test_what_is_held_never_exceeds_the_limit_and_all_of_it_is_given_back(limit, events):
    bodies = Bodies(limit)
    requests = [Held(bodies) for _ in range(4)]
    counted = [0] * 4
    for i, count in events:
        if count is None:
            requests[i].release()
            counted[i] = 0
        elif requests[i].add(count):
            counted[i] += count
        else:
            assert sum(counted) + count > limit
        assert bodies.held_bytes == sum(counted) <= limit
    for each in requests:
        each.release()
    assert bodies.held_bytes == 0


class Uploads:
    """Requests to the application whose bodies come in as a test says."""

    def __init__(self, world, limit_bytes):
        self.bodies = Bodies(limit_bytes)
        self.app = DataPlaneApp(world.plane, world.clock, lambda: "generated", self.bodies)

    async def begin(self, path="/predict/flights"):
        """A request: what its body is put into, and the task that gives status, headers and body of its answer."""
        incoming, sent = asyncio.Queue(), []

        async def send(message):
            sent.append(message)

        async def ask():
            scope = {"type": "http", "path": path, "method": "POST", "headers": []}
            await self.app(scope, incoming.get, send)
            if not sent:
                return None
            return sent[0]["status"], dict(sent[0]["headers"]), json.loads(sent[1]["body"])

        task = asyncio.create_task(ask())
        await asyncio.sleep(0)
        return incoming, task


def part(data, more=True):
    return {"type": "http.request", "body": data, "more_body": more}


async def rest(*tasks):
    """Wait until nothing moves any more."""
    for _ in range(20):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


@pytest.mark.parametrize("path", ["/predict/flights", "/v2/models/flights/infer", "/labels/flights"])
def test_a_request_for_which_there_is_no_room_is_told_when_to_come_again(served, row, path):
    async def run():
        uploads = Uploads(served, 10_000)
        first, first_task = await uploads.begin()
        second, second_task = await uploads.begin(path)
        first.put_nowait(part(json.dumps(row).encode() + b" " * 6_000))
        second.put_nowait(part(b" " * 3_000))
        assert await rest(first_task, second_task) == [False, False]
        second.put_nowait(part(b" " * 3_000))
        status, headers, said = await second_task
        assert (status, headers[b"retry-after"], headers[b"connection"]) == (503, b"1", b"close")
        assert "requests that are not answered yet" in said["error"]
        first.put_nowait(part(b" " * 3_000, more=False))
        assert (await first_task)[0] == 200
        assert uploads.bodies.held_bytes == 0
        assert uploads.app.refused == 1

    asyncio.run(run())


def test_a_client_that_goes_away_gives_its_room_back(served):
    async def run():
        uploads = Uploads(served, 10_000)
        incoming, task = await uploads.begin()
        incoming.put_nowait(part(b" " * 9_000))
        await rest()
        assert uploads.bodies.held_bytes == 9_000
        incoming.put_nowait({"type": "http.disconnect"})
        assert await task is None
        assert uploads.bodies.held_bytes == 0

    asyncio.run(run())


def test_a_refusal_for_want_of_room_is_counted_with_its_system_and_status(served):
    class Counted:
        def __init__(self):
            self.refusals = []

        def refused(self, system, status):
            self.refusals.append((system, status))

    async def run():
        uploads = Uploads(served, 1_000)
        served.plane.observing.metrics = counted = Counted()
        incoming, task = await uploads.begin()
        incoming.put_nowait(part(b" " * 1_001))
        assert (await task)[0] == 503
        assert counted.refusals == [("flights", 503)]

    asyncio.run(run())
