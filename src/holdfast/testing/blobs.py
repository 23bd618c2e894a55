"""The rules of a blob store."""

from holdfast.core.protocols import Blobs
from holdfast.errors import NotFound
from holdfast.testing.builders import refused


class BlobsRules:
    """What every blob store promises. Needs a fixture `blobs`, empty."""

    def test_bytes_read_back_under_the_hash_of_their_content(self, blobs: Blobs) -> None:
        key = blobs.put(b"abc")
        assert key == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
        assert blobs.get(key) == b"abc"
        assert blobs.has(key)

    def test_the_same_bytes_are_kept_once(self, blobs: Blobs) -> None:
        assert blobs.put(b"abc") == blobs.put(b"abc")
        other = blobs.put(b"")
        assert list(blobs.keys()) == sorted([blobs.put(b"abc"), other])

    def test_what_was_never_put_is_not_found(self, blobs: Blobs) -> None:
        for key in ("0" * 64, "short", "../../etc/passwd"):
            assert not blobs.has(key)
            with refused(NotFound, key):
                blobs.get(key)
        assert list(blobs.keys()) == []
