"""Both protocols under TLS, with a certificate that is made for the test."""

import asyncio
import contextlib
import json
import socket
import ssl
from datetime import UTC, datetime, timedelta

import h2.config
import h2.connection
import h2.events
import pytest
import uvicorn
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from holdfast.errors import StateError
from holdfast.serve.access import Access
from holdfast.serve.batching import Batcher
from holdfast.wire.fastlane import fast_lane
from holdfast.wire.grpc import InferenceService
from holdfast.wire.grpcmessages import INFERENCE
from holdfast.wire.grpcserver import GrpcServer
from holdfast.wire.grpcwire import prefixed
from holdfast.wire.heads import Heads
from holdfast.wire.http import BODY_LIMIT_BYTES, DataPlaneApp
from holdfast.wire.tls import Tls, server_context


def made(directory, name):
    """A certificate of its own for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(named)
        .issuer_name(named)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    tls = Tls(certificate=directory / f"{name}.pem", key=directory / f"{name}.key")
    tls.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    tls.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return tls


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return made(tmp_path_factory.mktemp("tls"), "one")


def trusting(tls, *protocols):
    context = ssl.create_default_context(cafile=str(tls.certificate))
    context.set_alpn_protocols(protocols)
    return context


@contextlib.asynccontextmanager
async def over_http(served, tls):
    """The port of a worker's HTTP."""
    app = DataPlaneApp(served.plane, served.clock, lambda: "generated")
    config = uvicorn.Config(
        app, http=fast_lane(Heads(served.plane, app, lambda: "generated")), lifespan="off", log_config=None,
        server_header=False, ws="none", ssl_context_factory=lambda *_: server_context(tls, ["http/1.1"]),
    )  # fmt: skip
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    await server.startup([listening])
    try:
        yield listening.getsockname()[1], app
    finally:
        await server.shutdown([listening])


def post(path, body):
    return b"POST %b HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n%b" % (path.encode(), len(body), body)


async def answer_of(reader):
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).decode()
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
    return int(head.split(" ")[1]), json.loads(await reader.readexactly(int(fields["content-length"])))


def test_the_fast_lane_answers_under_tls(served, row, tls):
    async def run():
        async with over_http(served, tls) as (port, app):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=trusting(tls, "http/1.1"), server_hostname="localhost"
            )
            writer.write(post("/predict/flights", json.dumps(row).encode()) * 50)
            answers = [await answer_of(reader) for _ in range(50)]
            assert {status for status, _ in answers} == {200}
            assert answers[0][1]["predictions"][0]["probability"] == 1.08
            assert not app.batcher.general, "none went the general way"
            large = json.dumps(row).encode()[:-1] + b" " * 1_000_000 + b"}"
            writer.write(post("/predict/flights", large) + b"GET /v2 HTTP/1.1\r\nhost: a\r\n\r\n")
            assert [(await answer_of(reader))[0] for _ in range(2)] == [200, 200]
            writer.close()
            await writer.wait_closed()

    uvloop.run(run())


def test_a_refusal_in_the_middle_of_a_body_is_seen_under_tls(served, tls):
    async def run():
        async with over_http(served, tls) as (port, _):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=trusting(tls), server_hostname="localhost"
            )
            head = b"POST /predict/flights HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (BODY_LIMIT_BYTES + 1)
            writer.write(head + b" " * 3_000_000)
            assert (await answer_of(reader))[0] == 413
            writer.transport.abort()

    uvloop.run(run())


def test_without_tls_nothing_is_answered_on_an_encrypted_port(served, tls):
    async def run():
        async with over_http(served, tls) as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                assert b"HTTP/1.1 200" not in await asyncio.wait_for(reader.read(), 20)
            writer.close()

    uvloop.run(run())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_grpc_answers_under_tls(served, tls, loop):
    async def run():
        service = InferenceService(served.plane, Batcher(served.plane), Access(), lambda: "generated")
        server = GrpcServer(service)
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        await server.start(listening, server_context(tls, ["h2"]))
        reader, writer = await asyncio.open_connection(
            *listening.getsockname(), ssl=trusting(tls, "h2"), server_hostname="localhost"
        )
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        client.initiate_connection()
        fields = {":method": "POST", ":scheme": "https", ":path": "/inference.GRPCInferenceService/ServerLive"}
        fields |= {":authority": "here", "te": "trailers", "content-type": "application/grpc"}
        client.send_headers(1, list(fields.items()))
        client.send_data(1, prefixed(b""), end_stream=True)
        writer.write(client.data_to_send())
        body = b""
        while True:
            events = client.receive_data(await asyncio.wait_for(reader.read(65_536), 20))
            body += b"".join(event.data for event in events if isinstance(event, h2.events.DataReceived))
            if any(isinstance(event, h2.events.StreamEnded) for event in events):
                break
        assert INFERENCE["ServerLiveResponse"].FromString(body[5:]).live
        writer.close()
        await server.stop(within_s=5)

    (asyncio if loop == "asyncio" else uvloop).run(run())


def test_files_that_do_not_go_together_are_named(tls, tmp_path):
    other = made(tmp_path, "two")
    for certificate, key in ((tls.certificate, other.key), (tls.key, tls.key), (tmp_path / "none.pem", tls.key)):
        with pytest.raises(StateError, match="PEM files that belong together") as caught:
            server_context(Tls(certificate=certificate, key=key), [])
        assert str(certificate) in str(caught.value)


def test_a_key_with_a_password_is_refused_without_asking_for_it(tls, tmp_path):
    key = serialization.load_pem_private_key(tls.key.read_bytes(), None)
    hidden = tmp_path / "hidden.key"
    hidden.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(StateError, match="the key without a password"):
        server_context(Tls(certificate=tls.certificate, key=hidden), [])
