import json
from pathlib import Path
from typing import get_args

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from holdfast.core.routes import ServedElsewhere, TokenHash
from holdfast.observe.metrics import Metrics
from holdfast.observe.metricsboard import MetricsBoard
from holdfast.security.identity import new_token
from holdfast.serve.paths import OPEN, Kind, place_of
from holdfast.testing.serving import SIGNATURE
from holdfast.wire.http import DataPlaneApp
from holdfast.wire.openapi import description

DOCUMENT = json.loads(description())
OPERATIONS = [
    (path, method) for path, methods in DOCUMENT["paths"].items() for method in methods if method in ("get", "post")
]
LOADING = "loading"
"""What only says that it is not for clients; it is not offered."""


def place(path):
    return place_of(path.format(system="flights", version="1"))


def test_everything_that_has_a_path_is_described():
    assert {place(path).kind for path, _ in OPERATIONS} | {LOADING} == set(get_args(Kind))
    versioned = {place(path).kind for path, _ in OPERATIONS if "{version}" in path}
    assert versioned == {"model", "model_ready", "stats", "infer"}


def test_every_endpoint_stands_in_the_reference():
    text = (Path(__file__).parents[2] / "docs" / "reference" / "http.md").read_text(encoding="utf-8")
    asked = [f"| `{method.upper()} {path}` |" for path, method in OPERATIONS if "{version}" not in path]
    assert [each for each in asked if each not in text] == []


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_an_operation_is_asked_as_its_path_is(path, method):
    operation, found = DOCUMENT["paths"][path][method], place(path)
    assert method.upper() in found.methods
    assert (operation.get("security") == []) is (found.kind in OPEN)
    assert ("requestBody" in operation) is (method == "post")
    assert "405" in operation["responses"]


def test_every_type_that_is_named_is_there():
    text = description().decode()
    for name in DOCUMENT["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text
    named = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert named == set(DOCUMENT["components"]["schemas"])


@pytest.fixture
def checked(world, tmp_path):
    """Sends what can be made from the description of an operation and checks each answer against it."""
    secret, sha256 = new_token()
    elsewhere = msgspec.structs.replace(
        world.system(), elsewhere=ServedElsewhere(signature=SIGNATURE, score="probability")
    )
    tokens = (TokenHash(sha256=sha256, role="client", name="shop"),)
    world.follow(flights=world.system("v1"), loans=elsewhere, tokens=tokens)
    app, headers = DataPlaneApp(world.plane, world.clock, lambda: "generated"), {"authorization": f"Bearer {secret}"}
    app.board = MetricsBoard(Metrics("worker", world.clock), tmp_path)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=headers)
    place_names = {"system": "flights", "version": "1"}
    # A body of the right form may hold values that the model refuses.
    apart = [positive_data_acceptance]

    def check(path, method, mode):
        statuses = set()
        place_names["system"] = "loans" if path.startswith(("/predictions", "/events")) else "flights"

        @settings(
            max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(case=schema[path][method].as_strategy(generation_mode=mode))
        def run(case):
            case.path_parameters |= {name: place_names[name] for name in case.path_parameters}
            answer = case.call(app=app, headers=headers)
            statuses.add(answer.status_code)
            case.validate_response(answer, headers=headers, excluded_checks=apart)

        run()
        return statuses

    return check


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_what_the_description_allows_is_answered_as_it_says(checked, path, method):
    statuses = checked(path, method, GenerationMode.POSITIVE)
    # A body may name a version that does not answer, which is not found.
    assert statuses == {200} if method == "get" else statuses <= {200, 400, 404, 422}


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), [each for each in OPERATIONS if each[1] == "post"])
def test_what_the_description_forbids_is_refused(checked, path, method):
    assert checked(path, method, GenerationMode.NEGATIVE) & {400, 422}
