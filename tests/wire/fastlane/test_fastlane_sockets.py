"""The fast lane over real sockets: clients that take nothing, say little, go away, or are too many."""

import asyncio
import resource
import socket
import struct
import subprocess
import sys
import time

import psutil
import pytest
import uvloop

from holdfast.wire.fastlane import IDLE_S, MOST_IN_FLIGHT, REQUEST_S

ROW = {"a": 1.0, "b": 2.0, "c": 3.0}


class Net:
    """A served system that listens on the loopback, and its clients, all in one loop."""

    def __init__(self, kit, buffer=0, **options):
        self._buffer = buffer
        self.kit = kit
        self.loop = uvloop.new_event_loop()
        self.served = kit.Served(loop=self.loop, **options)
        self.state = self.served.state
        self._sockets: list[socket.socket] = []

    async def listen(self):
        def made():
            return self.served.config.http_protocol_class(
                config=self.served.config, server_state=self.state, app_state={}, _loop=self.loop
            )

        listening = socket.socket()
        if self._buffer:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._buffer)
        listening.bind(("127.0.0.1", 0))
        self.address = listening.getsockname()
        self.server = await self.loop.create_server(made, sock=listening, backlog=4096)

    async def connect(self):
        client = socket.socket()
        if self._buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._buffer)
        client.setblocking(False)
        self._sockets.append(client)
        await self.loop.sock_connect(client, self.address)
        return Client(self, client)

    async def until(self, holds, seconds=20):
        """Wait for something that is about to be so."""
        deadline = self.loop.time() + seconds
        while not holds():
            assert self.loop.time() < deadline, "it never came to be"
            await asyncio.sleep(0.002)

    @property
    def lanes(self):
        return list(self.state.connections)

    def sweep(self, later_s):
        """What a worker does every second, so much later."""
        for lane in self.lanes:
            lane.close_if_overdue(time.perf_counter() + later_s)

    def run(self, scenario):
        async def all_of_it():
            await self.listen()
            try:
                await asyncio.wait_for(scenario(self), 60)
            finally:
                self.server.close()
                for lane in self.lanes:
                    lane.transport.abort()
                await self.until(lambda: not self.state.connections)
                await self.until(lambda: not self.state.tasks)
            assert self.served.is_at_rest()

        try:
            self.loop.run_until_complete(all_of_it())
        finally:
            for each in self._sockets:
                each.close()
            self.loop.close()


class Client:
    def __init__(self, net, sock):
        self._net, self.sock = net, sock
        self._got = b""

    async def send(self, data):
        await self._net.loop.sock_sendall(self.sock, data)

    async def all(self):
        """Everything until the server closes."""
        while data := await self._net.loop.sock_recv(self.sock, 1 << 20):
            self._got += data
        return self._net.kit.responses(self._got)

    async def take(self, count):
        """So many responses."""
        found, at = [], 0
        while len(found) < count:
            end = self._got.find(b"\r\n\r\n", at) + 4
            if end > 3:
                head = self._got[at:end]
                stop = end + int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                if len(self._got) >= stop:
                    found += self._net.kit.responses(self._got[at:stop])
                    at = stop
                    continue
            self._got, at = self._got[at:], 0
            data = await self._net.loop.sock_recv(self.sock, 1 << 20)
            assert data, f"closed after {len(found)} of {count} responses"
            self._got += data
        self._got = self._got[at:]
        return found

    def flood(self, chunk, start):
        """Sends a chunk over and over, from this byte of the stream on, as much as the kernel takes."""
        sent = start
        many = chunk * (1 + 100_000 // len(chunk))
        while True:
            try:
                sent += self.sock.send(many[sent % len(chunk) :])
            except BlockingIOError:
                return sent - start

    def vanish(self):
        """Go away with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


@pytest.fixture
def net(kit):
    return lambda scenario, **options: Net(kit, **options).run(scenario)


def wait_until_stuck(net, client, chunk):
    """Send until the server reads no more; returns how many bytes it was."""

    async def work():
        total, still = 0, 0
        while still < 40:
            now = client.flood(chunk, total)
            total, still = total + now, 0 if now else still + 1
            assert total < 60_000_000, "the server reads for ever"
            await asyncio.sleep(0.003)
        return total

    return work()


@pytest.mark.slow
@pytest.mark.parametrize("mix", ["usual", "away", "both", "large answers first"])
def test_a_client_that_never_reads_is_read_no_more_until_it_does(kit, net, mix):
    usual, away = kit.request("/predict/numbers", ROW), b"GET /v2 HTTP/1.1\r\nx: %b\r\n\r\n" % (b"x" * 1000)
    large = b"GET /openapi.json HTTP/1.1\r\n\r\n" * 3
    chunk = {"usual": usual, "away": away, "both": usual + away, "large answers first": usual}[mix] * 20
    first = large if mix == "large answers first" else b""

    async def scenario(net):
        client = await net.connect()
        await client.send(first)
        total = await wait_until_stuck(net, client, chunk)
        [lane] = net.lanes
        assert lane.flow.read_paused
        assert lane.transport.get_write_buffer_size() < 2_000_000
        assert len(lane._held) + len(lane._parts) < 1_000_000
        assert len(lane._in_flight) <= MOST_IN_FLIGHT
        assert len(lane.pipeline) < 2000
        whole = total // len(chunk) * 20 * (2 if mix == "both" else 1)
        answers = await client.take(3 * bool(first) + whole)
        answers = answers[3 * bool(first) :]
        assert {each.status for each in answers} == {200}
        if mix == "both":
            assert all(b"predictions" in each.body for each in answers[0::2])
            assert all(b"holdfast" in each.body for each in answers[1::2])

    net(scenario, buffer=32_768)


def test_many_pipelined_requests_are_answered_in_their_order(kit, net):
    raw = b"".join(kit.request("/predict/numbers", ROW, x_request_id=f"r{i}") for i in range(5 * MOST_IN_FLIGHT))

    async def scenario(net):
        client = await net.connect()
        _, answers = await asyncio.gather(client.send(raw), client.take(5 * MOST_IN_FLIGHT))
        assert [each.json["request_id"] for each in answers] == [f"r{i}" for i in range(5 * MOST_IN_FLIGHT)]

    net(scenario)


@pytest.mark.parametrize(
    "raw",
    [
        "one",
        "three",
        "away",
        "mixed",
        "behind it half of one",
    ],
)
def test_a_client_that_says_it_is_done_still_gets_its_answers(kit, net, raw):
    usual, away = kit.request("/predict/numbers", ROW), b"GET /v2/models/numbers HTTP/1.1\r\n\r\n"
    sent, count = {
        "one": (usual, 1),
        "three": (usual * 3, 3),
        "away": (kit.request("/predict/numbers?x", ROW), 1),
        "mixed": (usual + away + usual + away + away, 5),
        "behind it half of one": (usual + usual[:-5], 1),
    }[raw]

    async def scenario(net):
        client = await net.connect()
        await client.send(sent)
        client.sock.shutdown(socket.SHUT_WR)
        answers = await client.all()
        assert [each.status for each in answers] == [200] * count
        await net.until(lambda: not net.state.connections)

    net(scenario)


def test_a_client_that_is_done_before_its_request_is_whole_is_let_go(kit, net):
    async def scenario(net):
        for raw in (kit.request("/predict/numbers", ROW), kit.request("/predict/numbers?x", ROW), b"G", b""):
            client = await net.connect()
            await client.send(raw[:-5])
            client.sock.shutdown(socket.SHUT_WR)
            assert await client.all() == []

    net(scenario)


def test_clients_that_vanish_leave_nothing_behind(kit, net):
    usual, away = kit.request("/predict/numbers", ROW), kit.request("/predict/numbers?x", ROW)

    async def scenario(net):
        for raw in (usual[:20], usual[:-3], usual, usual * 500, away[:-3], away, away * 50, usual + away[:-3]):
            client = await net.connect()
            await client.send(raw)
            client.vanish()
        await net.until(lambda: not net.state.connections)
        client = await net.connect()
        await client.send(usual)
        assert [each.status for each in await client.take(1)] == [200]

    net(scenario)


@pytest.mark.parametrize("part", ["head", "body", "head of another", "body of another"])
def test_a_request_that_takes_too_long_ends_its_connection(kit, net, part):
    usual, away = kit.request("/predict/numbers", ROW), kit.request("/predict/numbers?x", ROW)
    raw = {"head": usual[:30], "body": usual[:-2], "head of another": away[:30], "body of another": away[:-2]}[part]

    async def scenario(net):
        client = await net.connect()
        for i in range(len(raw)):  # one byte at a time does not start the time anew
            await client.send(raw[i : i + 1])
            await asyncio.sleep(0)
        await net.until(lambda: net.lanes and net.lanes[0]._began_s)
        net.sweep(REQUEST_S - 5)
        assert net.lanes
        net.sweep(REQUEST_S + 1)
        assert await client.all() == []

    net(scenario)


def test_an_idle_connection_is_closed_after_its_time(kit, net):
    async def scenario(net):
        silent, used, away = [await net.connect() for _ in range(3)]
        await used.send(kit.request("/predict/numbers", ROW))
        await away.send(b"GET /v2 HTTP/1.1\r\n\r\n")
        await used.take(1)
        await away.take(1)
        net.sweep(IDLE_S - 5)
        assert len(net.lanes) == 3
        net.sweep(IDLE_S + 1)
        assert [await each.all() for each in (silent, used, away)] == [[], [], []]

    net(scenario)


def test_a_connection_that_looked_at_health_first_is_not_closed_while_it_is_used(kit, net):
    """uvicorn's timer for idle connections would go off in the middle of usual requests, which do not stop it."""

    async def scenario(net):
        client = await net.connect()
        await client.send(b"GET /v2/health/live HTTP/1.1\r\n\r\n")
        await client.take(1)
        [lane] = net.lanes
        assert lane.timeout_keep_alive_task is None

    net(scenario)


def test_a_client_that_never_takes_its_answers_is_cut_off(kit, net):
    async def scenario(net):
        client = await net.connect()
        await wait_until_stuck(net, client, b"GET /openapi.json HTTP/1.1\r\n\r\n" * 50)
        for later_s in (1, 2, 3, 4):
            net.sweep(later_s * (IDLE_S + REQUEST_S + 1))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await net.until(lambda: not net.state.connections)

    net(scenario, buffer=16_384)


def shut_down(net):
    for lane in net.lanes:
        lane.shutdown()


@pytest.mark.parametrize(
    "held", ["kernel", "parts", "in flight", "away", "away in the kernel", "pipelined", "many", "mixed"]
)
def test_a_shutdown_loses_no_request_that_was_sent(kit, net, held):
    usual, away = kit.request("/predict/numbers", ROW), kit.request("/predict/numbers?x", ROW)

    async def scenario(net):
        client, idle = await net.connect(), await net.connect()
        for each in (client, idle):
            await each.send(usual)
            await each.take(1)
        count = 1
        match held:
            case "kernel":
                client.sock.send(usual)  # not a tick lies between this and the shutdown
            case "away in the kernel":
                client.sock.send(away)
            case "parts":
                await client.send(usual[:-4])
                await net.until(lambda: any(lane._parts for lane in net.lanes))
            case "in flight":
                client.sock.send(usual)
                await net.until(lambda: any(lane._in_flight for lane in net.lanes) or net.served.count > 2)
            case "away":
                client.sock.send(away)
                await net.until(lambda: any(lane._is_slow for lane in net.lanes) or net.served.count > 2)
            case "pipelined":
                client.sock.send(usual * 300)
                count = 300
            case "many":
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                assert client.sock.send(usual * 4000) > 300_000  # more than is read at once
                shut_down(net)
                answers = await client.all()
                assert len(answers) > 300_000 // len(usual)
                assert {each.status for each in answers} == {200}
                return
            case "mixed":
                client.sock.send((usual + away) * 50)
                count = 100
        shut_down(net)
        if held == "parts":
            await client.send(usual[-4:])
        answers = await client.all()
        assert [each.status for each in answers] == [200] * count
        assert await idle.all() == []
        await net.until(lambda: not net.state.connections)

    net(scenario)


def test_the_last_answer_before_a_shutdown_says_that_it_is(kit, net):
    usual = kit.request("/predict/numbers", ROW)

    async def scenario(net):
        client = await net.connect()
        await client.send(usual)
        await client.take(1)
        client.sock.send(usual * 3)
        shut_down(net)
        assert [each.headers.get("connection") for each in await client.all()] == [None, None, "close"]

    net(scenario)


def test_a_full_queue_is_said_and_the_rest_is_answered(kit, net):
    raw = b"".join(kit.request("/predict/numbers", ROW, x_request_id=f"r{i}") for i in range(20))

    async def scenario(net):
        clients = [await net.connect() for _ in range(4)]
        for client in clients:
            client.sock.send(raw)
        answers = [each for client in clients for each in await client.take(20)]
        statuses = {each.status for each in answers}
        assert statuses <= {200, 429}
        assert all(int(each.headers["retry-after"]) >= 1 for each in answers if each.status == 429)
        assert any(each.status == 200 for each in answers)

    net(scenario, queue=2)


class FullDisk:
    """A lake on which nothing can be written."""

    def writer(self, table, system, schema):
        raise OSError(28, "No space left on device")


def test_what_cannot_be_recorded_is_not_answered(kit, net):
    async def scenario(net):
        client = await net.connect()
        await client.send(kit.request("/predict/numbers", ROW) * 3 + kit.request("/predict/numbers?x", ROW))
        assert [each.status for each in await client.take(4)] == [503] * 4

    net(scenario, lake=FullDisk())


def test_a_model_that_fails_on_one_request_answers_its_neighbours(kit, net):
    async def scenario(net):
        clients = [await net.connect() for _ in range(5)]
        for i, client in enumerate(clients):
            client.sock.send(kit.request("/predict/numbers", ROW | {"a": 13 if i in (1, 3) else 1}))
        statuses = [(await client.take(1))[0].status for client in clients]
        assert statuses == [200, 500, 200, 500, 200]
        await clients[1].send(kit.request("/predict/numbers", ROW))
        assert [each.status for each in await clients[1].take(1)] == [200]

    net(scenario)


def test_a_client_that_sends_too_large_a_body_sees_why_it_is_refused(kit, net):
    async def scenario(net):
        for raw in (
            kit.request("/predict/numbers", b" " * (9 << 20)),
            kit.request(
                "/predict/numbers", b"900000\r\n" + b" " * (9 << 20), content_length=None, transfer_encoding="chunked"
            ),
            kit.request("/predict/numbers", b"", content_length=str(9 << 20)),
        ):
            client = await net.connect()
            await client.send(raw)  # all of it, before it looks
            assert [each.status for each in await client.all()] == [413]
            client.sock.close()
            await net.until(lambda: not net.lanes)


def test_a_client_that_goes_on_behind_a_refusal_is_cut_off(kit, net):
    async def scenario(net):
        client = await net.connect()
        await client.send(kit.request("/predict/numbers", b"", content_length=str(9 << 20)))
        await net.until(lambda: net.lanes[0]._is_deaf)
        await client.send(kit.request("/predict/numbers", ROW))
        net.sweep(REQUEST_S + 1)
        assert [each.status for each in await client.all()] == [413]

    net(scenario)


def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(kit, net):
    raw = kit.request("/predict/numbers", ROW, expect="100-continue")
    head, body = raw.split(b"\r\n\r\n")

    async def scenario(net):
        client = await net.connect()
        await client.send(head + b"\r\n\r\n")
        assert await net.loop.sock_recv(client.sock, 1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(body)
        assert [each.status for each in await client.take(1)] == [200]
        await client.send(kit.request("/predict/numbers", ROW))
        assert [each.status for each in await client.take(1)] == [200]

    net(scenario)


IDLERS = """
import socket, sys
kept = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(int(sys.argv[2]))]
print("connected", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_ten_thousand_idle_connections_cost_little(kit, net):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10_000, hard - 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 500), hard))
    process = psutil.Process()

    async def scenario(net):
        first = await net.connect()
        before = process.memory_info().rss
        command = [sys.executable, "-c", IDLERS, str(net.address[1]), str(count)]
        clients = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        await net.until(lambda: len(net.state.connections) == count + 1, 50)
        per_connection = (process.memory_info().rss - before) / count
        assert per_connection < 12_000, f"{per_connection:.0f} bytes per connection"
        began = time.process_time()
        net.sweep(0.0)
        assert time.process_time() - began < 0.1
        began = time.process_time()
        await first.send(kit.request("/predict/numbers", ROW))
        assert [each.status for each in await first.take(1)] == [200]
        assert time.process_time() - began < 0.1
        print(f"{per_connection:.0f} bytes per connection")
        clients.terminate()
        await clients.wait()
        await net.until(lambda: len(net.state.connections) == 1)

    try:
        net(scenario)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
