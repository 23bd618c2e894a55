"""State in memory, for backtests and tests: the same promises as on disk, kept until the process ends."""

import hashlib
from collections.abc import Iterator

from holdfast.engines.memorycatalog import MemoryCatalog
from holdfast.engines.memorylake import MemoryLake
from holdfast.errors import NotFound, Tampered

__all__ = ["MemoryBlobs", "MemoryCatalog", "MemoryLake"]


class MemoryBlobs:
    """Artifacts by content hash, in memory."""

    def __init__(self) -> None:
        self._held: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        """Keep bytes under the sha256 of their content."""
        key = hashlib.sha256(data).hexdigest()
        self._held.setdefault(key, bytes(data))
        return key

    def get(self, key: str) -> bytes:
        """The bytes. Raises NotFound, or Tampered when they are not what was put."""
        if key not in self._held:
            raise NotFound("blob", key)
        data = self._held[key]
        if hashlib.sha256(data).hexdigest() != key:
            raise Tampered(f"blob {key} in memory does not hash to its key; make it again from its source")
        return data

    def has(self, key: str) -> bool:
        """Whether these bytes were put."""
        return key in self._held

    def keys(self) -> Iterator[str]:
        """All keys, sorted."""
        return iter(sorted(self._held))
