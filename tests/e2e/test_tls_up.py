"""`holdfast up` with a certificate: every port is encrypted, and who binds to the outside without one is warned."""

import json
import signal
import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

pytestmark = pytest.mark.slow

ROW = {"load": 1.5, "distance": 0.5, "kind": "b"}


@pytest.fixture
def files(tmp_path):
    """A certificate of its own for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "holdfast")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    places = tmp_path / "cert.pem", tmp_path / "key.pem"
    places[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    places[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return places


@pytest.fixture
def up(tools, deployed):
    """Starts `holdfast up` with these options and gives what it said and where it serves; stops it at the end."""
    started = []

    def start(*options):
        argv = [sys.executable, "-m", "holdfast", "up", "--state", str(deployed / "state"), "--port", "0"]
        argv += ["--console-port", "0", *map(str, options)]
        out = deployed / f"up-{len(started)}.out"
        with out.open("w") as file:
            process = subprocess.Popen(argv, stdout=file, stderr=subprocess.DEVNULL)
        started.append(process)

        def said():
            so_far = out.read_text()
            assert process.poll() is None, f"it ended: {process.returncode}\n{so_far}"
            return so_far if "stop with" in so_far else ""

        return tools.until(said, "the word that it is up"), json.loads((deployed / "state/run/up.json").read_bytes())

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_every_port_is_encrypted(tools, up, files):
    said, place = up("--grpc-port", 0, "--tls-cert", files[0], "--tls-key", files[1], "--host", "0.0.0.0")
    assert "nothing is encrypted" not in said
    token = said.partition("admin token, shown this once: ")[2].split()[0]
    trusted = ssl.create_default_context(cafile=str(files[0]))
    ports = {name: place[name].rpartition(":")[2] for name in ("url", "console", "grpc")}
    assert place["url"].startswith("https://")
    with httpx.Client(verify=trusted, headers={"authorization": f"Bearer {token}"}, timeout=20) as client:

        def status(url, **body):
            try:
                return client.request("POST" if body else "GET", url, json=body or None).status_code
            except httpx.TransportError:
                return 0

        tools.until(lambda: status(f"https://localhost:{ports['url']}/predict/orders", **ROW) == 200, "an answer")
        tools.until(lambda: status(f"https://localhost:{ports['console']}/api/status") == 200, "the console")
    trusted.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("localhost", int(ports["grpc"]))) as plain,
        trusted.wrap_socket(plain, server_hostname="localhost") as encrypted,
    ):
        assert encrypted.selected_alpn_protocol() == "h2"
        encrypted.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5))
        assert encrypted.recv(9)[3] == 4, "SETTINGS"
    for port in ports.values():
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://localhost:{port}/v2/health/live", timeout=20)


def test_who_can_be_reached_without_encryption_is_warned(up):
    said, place = up("--host", "0.0.0.0")
    assert "this can be reached from other machines, and nothing is encrypted: give --tls-cert and --tls-key" in said
    assert place["url"].startswith("http://")


def test_a_certificate_without_its_key_starts_nothing(tools, deployed, files):
    state = ("--state", deployed / "state", "--port", 0, "--console-port", 0)
    alone = tools.holdfast("up", *state, "--tls-cert", files[0], expect=2)
    assert "given without --tls-key" in alone.stderr
    wrong = tools.holdfast("up", *state, "--tls-cert", files[0], "--tls-key", files[0], expect=8)
    assert "PEM files that belong together" in wrong.stderr
    assert not (deployed / "state" / "run" / "up.json").exists()
