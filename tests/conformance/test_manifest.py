"""The rules of a lake's manifest, on every manifest."""

from pathlib import Path

import pytest

from holdfast.engines.manifest import Contents, LakeFile, MemoryManifest, Swap
from holdfast.engines.sqlite import SqliteCatalog
from holdfast.errors import StateError


def a_file(path, system="flights", table="predictions", rows=1):
    return LakeFile(system=system, table=table, path=path, rows=rows, low=-(2**63), high=2**63 - 1, size_bytes=5)


def a_swap(system="flights", table="predictions", **changes):
    return Swap(system=system, table=table, **changes)


class ManifestRules:
    def test_a_table_never_swapped_is_empty(self, manifest):
        assert manifest.contents("flights", "predictions") == Contents()
        assert manifest.generation("flights", "predictions") == 0

    def test_a_swap_replaces_files_and_counts_the_generation_up(self, manifest):
        manifest.swap([a_swap(add=(a_file("a"), a_file("b")), rolled=frozenset({"s1", "s2"}))])
        manifest.swap([a_swap(add=(a_file("c"),), remove=frozenset({"a"}), rolled=frozenset({"s3"}))])
        manifest.swap([a_swap(forget=frozenset({"s1", "s2"}))])
        assert manifest.contents("flights", "predictions") == Contents(
            generation=3, files=(a_file("b"), a_file("c")), rolled=frozenset({"s3"})
        )
        assert manifest.generation("flights", "predictions") == 3

    def test_tables_and_systems_are_kept_apart(self, manifest):
        manifest.swap([a_swap(add=(a_file("a"),)), a_swap(table="labels", add=(a_file("b", table="labels"),))])
        manifest.swap([a_swap(system="disks", add=(a_file("c", system="disks"),))])
        assert [file.path for file in manifest.contents("flights", "labels").files] == ["b"]
        assert [file.path for file in manifest.contents("disks", "predictions").files] == ["c"]
        assert manifest.generation("flights", "predictions") == 1


class TestMemoryManifest(ManifestRules):
    @pytest.fixture
    def manifest(self):
        return MemoryManifest()


class TestSqliteManifest(ManifestRules):
    @pytest.fixture
    def manifest(self, tmp_path: Path, empty_catalog: Path):
        path = tmp_path / "catalog.db"
        path.write_bytes(empty_catalog.read_bytes())
        catalog = SqliteCatalog(path)
        yield catalog.manifest
        catalog.close()

    def test_changes_are_made_all_or_none(self, manifest):
        with pytest.raises(StateError, match="Nothing of this transaction was recorded"):
            manifest.swap([a_swap(add=(a_file("a"),)), a_swap(table="labels", add=(a_file("a", table="labels"),))])
        assert manifest.contents("flights", "predictions") == Contents()
