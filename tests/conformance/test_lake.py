"""The rules of a lake, on every lake."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.core.protocols import Lake
from holdfast.engines.files import FileLake
from holdfast.engines.manifest import MemoryManifest
from holdfast.engines.memory import MemoryLake
from holdfast.engines.sqlite import SqliteCatalog
from holdfast.testing import LakeRules


class TestMemoryLake(LakeRules):
    @pytest.fixture
    def lake(self) -> Lake:
        return MemoryLake()


class TestFileLake(LakeRules):
    @pytest.fixture(params=["process", "disk", "memory"])
    def lake(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lake]:
        lake = FileLake(tmp_path, MemoryManifest(), record=request.param)
        yield lake
        lake.close()


class TestFileLakeWithSqliteManifest(LakeRules):
    @pytest.fixture
    def lake(self, tmp_path: Path, empty_catalog: Path) -> Iterator[Lake]:
        path = tmp_path / "catalog.db"
        path.write_bytes(empty_catalog.read_bytes())
        catalog = SqliteCatalog(path)
        lake = FileLake(tmp_path / "lake", catalog.manifest)
        yield lake
        lake.close()
        catalog.close()
