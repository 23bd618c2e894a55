"""The rules of a blob store, on every blob store."""

from pathlib import Path

import pytest

from holdfast.core.protocols import Blobs
from holdfast.engines.blobs import FileBlobs
from holdfast.engines.memory import MemoryBlobs
from holdfast.testing import BlobsRules


class TestMemoryBlobs(BlobsRules):
    @pytest.fixture
    def blobs(self) -> Blobs:
        return MemoryBlobs()


class TestFileBlobs(BlobsRules):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> Blobs:
        return FileBlobs(tmp_path / "blobs")
