"""Artifacts by content hash, in files: ``<directory>/ab/cd/<sha256>``."""

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from holdfast.engines.segments import sync_directory
from holdfast.errors import NotFound, StateError, Tampered

_KEY = re.compile(r"[0-9a-f]{64}")


class FileBlobs:
    """Artifacts in files below `directory`. Processes and threads may share it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, data: bytes) -> str:
        """Store bytes, on disk when this returns. Raises StateError when they cannot be written."""
        key = hashlib.sha256(data).hexdigest()
        path = self._path(key)
        unfinished = path.with_name(f".{secrets.token_hex(8)}")
        try:
            if path.exists() and path.read_bytes() == data:
                return key
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with unfinished.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                unfinished.rename(path)
            finally:
                unfinished.unlink(missing_ok=True)
            for directory in (path.parent, path.parent.parent, self._directory):
                sync_directory(directory)
        except OSError as failure:
            raise StateError(
                f"cannot store blob {path}: {failure.strerror}; check that the disk is writable and has space"
            ) from failure
        return key

    def get(self, key: str) -> bytes:
        """The bytes. Raises NotFound, or Tampered when the file is not what was put."""
        if not _KEY.fullmatch(key):
            raise NotFound("blob", key)
        path = self._path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise NotFound("blob", key) from None
        if hashlib.sha256(data).hexdigest() != key:
            raise Tampered(f"{path} does not hash to its name: it was changed or damaged; restore it from a backup")
        return data

    def has(self, key: str) -> bool:
        """Whether these bytes were put; they are verified by `get`."""
        return _KEY.fullmatch(key) is not None and self._path(key).exists()

    def keys(self) -> Iterator[str]:
        """All keys, sorted."""
        found = (path.name for path in self._directory.glob("??/??/*") if _KEY.fullmatch(path.name))
        return iter(sorted(found))

    def _path(self, key: str) -> Path:
        return self._directory / key[:2] / key[2:4] / key
