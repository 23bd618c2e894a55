"""Write what this version records, once per release: `python tests/data/old/make.py tests/data/old/<version>`.

Later versions must load it for ever (tests/engines/test_old.py); a directory that was released is never written again.
"""

import sys
from pathlib import Path

from holdfast.engines.blobs import FileBlobs
from holdfast.engines.files import FileLake
from holdfast.engines.sqlite import SqliteCatalog
from holdfast.testing import PREDICTION_FIELDS, START, hours, manual_clock, one_of_each, predictions


def main(directory: Path) -> None:
    catalog = SqliteCatalog(directory / "catalog.db", clock=manual_clock())
    with catalog.begin() as transaction:
        for record in one_of_each():
            transaction.put(record)
            transaction.audit(
                at=START,
                actor="me",
                action="put",
                system=record.system,
                subject=record.id,
                detail={"table": record.table},
            )
    lake = FileLake(directory / "lake", catalog.manifest, clock=manual_clock())
    for day, ids in enumerate((["a", "b"], ["b", "c"])):
        writer = lake.writer("predictions", "flights", PREDICTION_FIELDS)
        writer.append(predictions(ids, at=START + hours(24 * day), carrier=[None, "Zürich"]), len(ids))
        if day == 0:
            writer.close()
            lake.roll()
            lake.roll()
    (segment,) = (directory / "lake").rglob("*.seg.open")
    bytes_of_an_open_segment = segment.read_bytes()
    lake.close()
    (sealed,) = (directory / "lake").rglob("*.seg")
    sealed.rename(sealed.with_name("node.1.sealed.seg"))
    (sealed.parent / "node.1.open.seg.open").write_bytes(bytes_of_an_open_segment[:-1])
    (directory / "lake" / ".rolling").unlink()
    FileBlobs(directory / "blobs").put(b"model")
    catalog.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
