"""The rules of a catalog, on every catalog."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.core.protocols import Catalog
from holdfast.engines.memory import MemoryCatalog
from holdfast.engines.sqlite import SqliteCatalog
from holdfast.testing import CatalogRules


class TestMemoryCatalog(CatalogRules):
    @pytest.fixture
    def catalog(self) -> Catalog:
        return MemoryCatalog()


class TestSqliteCatalog(CatalogRules):
    @pytest.fixture
    def catalog(self, tmp_path: Path, empty_catalog: Path) -> Iterator[Catalog]:
        path = tmp_path / "catalog.db"
        path.write_bytes(empty_catalog.read_bytes())
        catalog = SqliteCatalog(path)
        yield catalog
        catalog.close()
