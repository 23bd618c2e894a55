"""For tests of Holdfast and of kinds made for it: a clock by hand, builders, and the rules of each port of state.

A suite of rules is a plain class: inherit it in a test module that has a fixture of the port's name.

    class TestMyCatalog(CatalogRules): ...

    @pytest.fixture
    def catalog(): ...
"""

from holdfast.testing.blobs import BlobsRules
from holdfast.testing.builders import (
    HOUR,
    PREDICTION_FIELDS,
    START,
    a_job,
    a_verdict,
    hours,
    manual_clock,
    micros,
    one_of_each,
    predictions,
    refused,
)
from holdfast.testing.catalog import CatalogRules
from holdfast.testing.lake import LakeRules

__all__ = [
    "HOUR",
    "PREDICTION_FIELDS",
    "START",
    "BlobsRules",
    "CatalogRules",
    "LakeRules",
    "a_job",
    "a_verdict",
    "hours",
    "manual_clock",
    "micros",
    "one_of_each",
    "predictions",
    "refused",
]
