"""Coverage-guided fuzzing of the fast lane: `python tests/fuzz/fuzz_http.py [libFuzzer options] [corpus ...]`.

The first byte of an input says what is tried. A stream of requests is cut into packets in two ways: both must get the
same answers, and no call may be left behind. A body is sent over the fast lane and over plain ASGI: both must say the
same. Needs atheris, which is no dependency of Holdfast; without it this says so and ends well. The suite tries the
inputs of `corpus` without it.
"""

import logging
import runpy
import struct
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    try:
        import atheris
    except ImportError:
        print("fuzz_http: skipped, atheris is not installed (pip install atheris)")
        sys.exit(0)
    with atheris.instrument_imports(include=["holdfast.serve", "holdfast.core.inputs", "uvicorn.protocols.http"]):
        import holdfast.wire.fastlane  # noqa: F401 - imported here, so that it is instrumented

HERE = Path(__file__).parent
KIT = runpy.run_path(str(HERE.parent / "wire" / "fastlane" / "conftest.py"))
BODY_PATHS = [f"/{kind.format(name)}" for name in KIT["SIGNATURES"] for kind in ("predict/{}", "v2/models/{}/infer")]
RENEWED_AFTER = 3000
"""Inputs after which what was recorded in memory is let go."""
FIRST_LINE = b"POST /predict/numbers HTTP/1.1\r\n"
"""What the byte 1 stands for in a stream."""


class Tried:
    """The served systems, made anew now and then."""

    def __init__(self) -> None:
        self.count = 0

    def renew(self) -> None:
        """Let go of what was recorded, if it is time."""
        if self.count % RENEWED_AFTER == 0:
            self.close()
            self.fast, self.plain = KIT["Served"](), KIT["Served"](is_fast=False)
            self.fast.next_id = self.plain.next_id = "gen-1"
        self.count += 1

    def close(self) -> None:
        """Close the event loops."""
        if self.count:
            self.fast.close()
            self.plain.close()


tried = Tried()


def try_stream(data: bytes) -> None:
    """Cut a stream at two bytes that the input names, and at none; what comes back must be the same."""
    if len(data) < 4:
        return
    first, second = struct.unpack("<HH", data[:4])
    raw = data[4:].replace(b"\x01", FIRST_LINE)
    cuts = sorted((first % (len(raw) + 1), second % (len(raw) + 1)))
    sent: list[bytes] = []
    for packets in ([raw], [raw[: cuts[0]], raw[cuts[0] : cuts[1]], raw[cuts[1] :]]):
        line = tried.fast.connect().send(*packets)
        sent.append(line.sent)
        line.end()
        assert tried.fast.is_at_rest(), "a call was left behind"
    if b"HEAD" in raw:
        return  # where its answers end cannot be told without knowing the requests
    answers = [[each.said() for each in KIT["responses"](each)] for each in sent]
    # Chunks that are broken are answered by whoever sees them first, and a wish to upgrade may end a connection.
    if any(word in raw.lower() for word in (b"transfer-encoding", b"upgrade", b"connect")):
        return
    # What can no longer become a request is refused at once by one parser, and waited for by the other.
    kept = [[each for each in some if each[2] != b"Invalid HTTP request received."] for some in answers]
    assert kept[0] == kept[1], (raw, cuts, answers)


def try_body(data: bytes) -> None:
    """Both ways must read a body alike."""
    if len(data) < 3:
        return
    path = BODY_PATHS[data[0] % len(BODY_PATHS)]
    headers = {"inference_header_content_length": str(data[1])} if data[1] else {}
    raw = KIT["request"](path, data[2:], **headers)
    fast, plain = (KIT["responses"](served.ask(raw)) for served in (tried.fast, tried.plain))
    assert [each.said() for each in fast] == [each.said() for each in plain], raw
    assert tried.fast.is_at_rest(), "a call was left behind"


def try_one(data: bytes) -> None:
    """One input."""
    if not data:
        return
    tried.renew()
    (try_stream if data[0] % 2 else try_body)(data[1:])


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    arguments = sys.argv
    if not any(not each.startswith("-") for each in arguments[1:]):
        found = tempfile.mkdtemp(prefix="fuzz_http-")  # what is found must not land among the seeds
        arguments = [*arguments, f"-artifact_prefix={found}/", found, str(HERE / "corpus")]
    atheris.Setup(arguments, try_one)
    atheris.Fuzz()
