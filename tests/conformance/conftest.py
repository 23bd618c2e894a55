from pathlib import Path

import pytest

from holdfast.engines.sqlite import SqliteCatalog


@pytest.fixture(scope="session")
def empty_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated catalog file to copy: migrating once is enough."""
    path = tmp_path_factory.mktemp("catalog") / "catalog.db"
    SqliteCatalog(path).close()
    return path
