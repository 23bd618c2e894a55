"""The same bodies on the fast lane and on plain ASGI: the same answers, the same rows in the lake."""

import json
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NUMBER_TEXTS = [
    "0",
    "-0",
    "-0.0",
    "0.0",
    "1",
    "1.5",
    "-10",
    "10",
    "10.0000001",
    "11",
    "13",
    "14",
    "1e2",
    "1E2",
    "1e-400",
    "1e300",
    "1e308",
    "1e309",
    "-1e309",
    "1e999",
    "3.5e38",
    "3.4028235e38",
    "9007199254740992",
    "9007199254740993",
    "-9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "123456789012345678901234567890",
    "23",
    "24",
    "80",
    "4999.5",
    "1.0",
    "2.5",
    "00",
    "01",
    "+1",
    ".5",
    "1.",
    "0x1",
    "NaN",
    "Infinity",
    "-Infinity",
    "nan",
]
NUMBER_TEXTS += ["9" * 400, "9" * 5000, "0." + "1" * 400]
OTHER_TEXTS = ['""', '"AA"', '"UA"', '"\\u00d6A"', '"ÖA"', '"x"', '"y"', '"z"', '"A1"', '"\\ud800"', '"\\ud83d\\ude00"']
OTHER_TEXTS += ['"\\u0000"', "true", "false", "null", "[]", "{}", "[1]", "[[1]]", '"1"', "'x'", "tru", ""]
DATATYPES = [
    "BOOL",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "UINT8",
    "UINT64",
    "FP16",
    "FP32",
    "FP64",
    "BF16",
    "BYTES",
    "fp64",
    "STRING",
]


class Both:
    """The two ways side by side."""

    def __init__(self, kit):
        self.kit = kit
        self.fast, self.plain = kit.Served(), kit.Served(is_fast=False)

    def same(self, raw: bytes) -> list:
        """Asks both; returns what both answered."""
        # The id decides which version answers where nothing else does.
        self.fast.next_id = self.plain.next_id = f"gen-{self.fast.count}"
        self.fast.count += 1
        fast, plain = self.kit.responses(self.fast.ask(raw)), self.kit.responses(self.plain.ask(raw))
        assert [each.said() for each in fast] == [each.said() for each in plain], raw
        for one, other in zip(fast, plain, strict=True):
            assert one.status != 200 or one.body == other.body, raw
        assert self.fast.is_at_rest(), raw
        return fast

    def same_rows(self) -> int:
        """Compares what both recorded, and returns how many rows that is."""
        fast, plain = self.kit.recorded(self.fast), self.kit.recorded(self.plain)
        assert fast == plain
        return len(fast)


@pytest.fixture
def both(kit):
    made = Both(kit)
    yield made
    made.same_rows()
    made.fast.close()
    made.plain.close()


@pytest.fixture(scope="module")
def lasting(kit):
    """Two ways that stay for all examples of a property."""
    made = Both(kit)
    yield made
    made.same_rows()
    made.fast.close()
    made.plain.close()


SLOW_SETUP = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]

VALUES = {
    "number": st.sampled_from(["0", "1", "-0.0", "2.5", "7", "80", "500.25", "13", "14", "null"]),
    "integer": st.sampled_from(["0", "1", "8", "23", "13", "14", "8.0", "null"]),
    "category": st.sampled_from(['"AA"', '"UA"', '"\\u00d6A"', '"A1"', '"x"', '"y"', '"new"', "null"]),
    "boolean": st.sampled_from(["true", "false", "null"]),
}
ODD = st.sampled_from(NUMBER_TEXTS + OTHER_TEXTS)
ODDLY = st.integers(0, 30).map(lambda n: n == 0)


@st.composite
def value(draw, kind):
    """A value of a column as text of JSON; now and then one that does not belong there."""
    return draw(ODD) if draw(ODDLY) else draw(VALUES[kind])


@st.composite
def pair(draw, name, text):
    quoted = json.dumps(name, ensure_ascii=draw(st.booleans()))
    if draw(ODDLY):
        quoted = '"' + "".join(f"\\u{ord(each):04x}" for each in name) + '"'
    return f"{quoted}{draw(st.sampled_from([':', ': ', ' : ']))}{text}"


@st.composite
def objects(draw, pairs):
    """An object of pairs, now and then with one twice, in another order or with one more."""
    pairs = list(pairs)
    if draw(ODDLY):
        pairs.append(draw(st.sampled_from(pairs or ['"a":1'])))
    if draw(ODDLY):
        pairs = draw(st.permutations(pairs))
    if draw(ODDLY):
        pairs.append(draw(pair(draw(st.sampled_from(["x", "id", "extra", "parameters", "version", "rows", ""])), "1")))
    return "{" + ",".join(pairs) + "}"


IDS = st.sampled_from(['"i"', '""', "null", '"\\u00e9"', '"a b"', '"\\n"', f'"{"l" * 201}"', "7", '"\\ud800"'])
KEYS = st.sampled_from(["1", '"k"', '""', "null", "7.0", "7.5", "1e3", "true", "123456789012345678901234567890", "[]"])


@st.composite
def plain_row(draw, signature):
    pairs = []
    for column in signature.columns:
        if not draw(ODDLY):
            pairs.append(draw(pair(column.name, draw(value(column.type)))))
    for name in ("id", "tail"):
        if draw(st.integers(0, 3)) == 0 and all(name != column.name for column in signature.columns):
            pairs.append(draw(pair(name, draw(KEYS))))
    return draw(objects(pairs))


@st.composite
def plain_body(draw, signature):
    if draw(st.booleans()):
        return draw(plain_row(signature))
    rows = draw(st.lists(plain_row(signature), max_size=5))
    pairs = [f'"rows":[{",".join(rows)}]']
    if draw(st.integers(0, 3)) == 0:
        pairs.append(f'"id":{draw(IDS)}')
    for name in ("keys", "units"):
        if draw(st.integers(0, 5)) == 0:
            n = max(0, len(rows) + draw(st.sampled_from([0, 0, 0, 1, -1])))
            pairs.append(f'"{name}":[{",".join(draw(st.lists(KEYS, min_size=n, max_size=n)))}]')
    if draw(ODDLY):
        times = ",".join(['"2013-01-05T10:00:00Z"'] * len(rows))
        pairs.append(f'"event_at":[{times}]')
    if draw(ODDLY):
        pairs.append('"version":"1"')
    return draw(objects(pairs))


@st.composite
def tensor(draw, name, datatype, shape, texts, width=0):
    if draw(ODDLY):
        datatype = draw(st.sampled_from(DATATYPES))
    if draw(ODDLY):
        shape = draw(st.sampled_from([[], [0], [1], [2], [-1], [1, 1], [1, 2, 3], [10**20], [len(texts)], shape]))
    data = ",".join(texts)
    if width and draw(ODDLY):
        data = ",".join("[" + ",".join(texts[i : i + width]) + "]" for i in range(0, len(texts), width))
    pairs = [
        f'"name":{json.dumps(name)}',
        f'"shape":{json.dumps(shape)}',
        f'"datatype":"{datatype}"',
        f'"data":[{data}]',
    ]
    if draw(ODDLY):
        pairs.append('"parameters":{}')
    return draw(objects(pairs))


@st.composite
def infer_body(draw, signature):
    n, columns = draw(st.integers(0, 4)), signature.columns
    is_packed = draw(st.booleans()) and all(column.type != "category" for column in columns)
    if is_packed:
        texts = [draw(value(column.type)) for _ in range(n) for column in columns]
        name = draw(st.sampled_from(["input", "input", "id", "tail", "", columns[0].name, "é"]))
        datatype = draw(st.sampled_from(["FP64", "FP32", "INT64"]))
        tensors = [draw(tensor(name, datatype, [n, len(columns)], texts, len(columns)))]
    else:
        tensors = []
        usual = {"number": ["FP64", "FP32"], "integer": ["INT64"], "category": ["BYTES"], "boolean": ["BOOL"]}
        for column in columns:
            if draw(ODDLY):
                continue
            texts = [draw(value(column.type)) for _ in range(n)]
            shape = draw(st.sampled_from([[n], [n, 1]]))
            tensors.append(draw(tensor(column.name, draw(st.sampled_from(usual[column.type])), shape, texts)))
        if draw(ODDLY):
            tensors.append(draw(tensor("id", "BYTES", [n], ['"k"'] * n)))
    pairs = [f'"inputs":[{",".join(tensors)}]']
    if draw(st.integers(0, 3)) == 0:
        pairs.append(f'"id":{draw(IDS)}')
    if draw(ODDLY):
        parameters = draw(st.sampled_from(['{"key":7}', '{"binary_data_output":true}', "{}", "null"]))
        pairs.append(f'"parameters":{parameters}')
    if draw(ODDLY):
        wanted = draw(st.sampled_from(["minutes", "other", "class"]))
        pairs.append(f'"outputs":[{{"name":"{wanted}"}}]')
    return draw(objects(pairs))


@st.composite
def around(draw, text):
    """What may stand around a body, or be missing from it."""
    body = text.encode("utf-8", "surrogatepass")
    kind = draw(st.integers(0, 40))
    if kind == 0:
        return body[: draw(st.integers(0, len(body)))]
    before, behind = {1: (b"\xef\xbb\xbf", b""), 2: (b" \r\n\t", b" \n"), 3: (b"", b"x"), 4: (b"", b"\x00")}.get(
        kind, (b"", b"")
    )
    return before + body + behind


@st.composite
def cases(draw, kit, bodies, path, names=()):
    name = draw(st.sampled_from(names or sorted(kit.signatures)))
    body = draw(around(draw(bodies(kit.signatures[name]))))
    headers = {} if draw(st.booleans()) else {"x_request_id": draw(st.sampled_from(["h", "é", "l" * 201, ""]))}
    return kit.request(path.format(name), body, **headers)


@settings(max_examples=400, deadline=None, suppress_health_check=SLOW_SETUP, derandomize=True)
@given(st.data())
@pytest.mark.slow
def test_plain_bodies_are_read_alike(lasting, kit, data):
    lasting.same(data.draw(cases(kit, plain_body, "/predict/{}")))


@settings(max_examples=400, deadline=None, suppress_health_check=SLOW_SETUP, derandomize=True)
@given(st.data())
@pytest.mark.slow
def test_bodies_of_the_protocol_are_read_alike(lasting, kit, data):
    lasting.same(data.draw(cases(kit, infer_body, "/v2/models/{}/infer")))


CLASSES = ("classes", "fewerclasses", "mixedclasses", "splitclasses")


@settings(max_examples=300, deadline=None, suppress_health_check=SLOW_SETUP, derandomize=True)
@given(st.data())
@pytest.mark.slow
def test_answers_of_several_classes_are_told_alike(lasting, kit, data):
    path, body = data.draw(st.sampled_from([("/predict/{}", plain_body), ("/v2/models/{}/infer", infer_body)]))
    lasting.same(data.draw(cases(kit, body, path, CLASSES)))


BYTES = st.sampled_from([b"", b"\x00" * 7, struct.pack("<d", 1.5), struct.pack("<d", float("nan"))])
FLOATS = st.sampled_from([0.0, -0.0, 1.5, 7.0, 13.0, 14.0, float("nan"), float("inf"), 1e30, 11.0])


@st.composite
def binary_cases(draw, kit):
    plain = ["numbers", "split", "tight", "one", "mixed", "counts", "keyed"]
    name = draw(st.sampled_from([*plain, "classes", "splitclasses", "fewerclasses"]))
    width = len(kit.signatures[name].columns)
    n = draw(st.integers(0, 5))
    code, _, datatype = draw(st.sampled_from([("d", 8, "FP64"), ("d", 8, "FP64"), ("f", 4, "FP32"), ("q", 8, "INT64")]))
    made = [draw(FLOATS) for _ in range(n * width)]
    if code == "q":
        made = [int(each) if each == each and abs(each) < 100 else 1 for each in made]
    raw = struct.pack(f"<{len(made)}{code}", *made)
    if draw(ODDLY):
        raw += draw(BYTES)
    said = (
        len(raw) if not draw(ODDLY) else draw(st.sampled_from([0, -1, len(raw) + 1, 8, 10**30, 1.5, True, None, "8"]))
    )
    shape = [n, width] if not draw(ODDLY) else draw(st.sampled_from([[], [n], [n * width], [-1, width], [1, n, width]]))
    infer = {
        "inputs": [
            {
                "name": draw(st.sampled_from(["input", "input", "input", "id", "tail", "a"])),
                "shape": shape,
                "datatype": datatype,
                "parameters": {"binary_data_size": said},
            }
        ]
    }
    wanted = draw(st.sampled_from([None, None, True, False, "other", "odd", "all", "class"]))
    if wanted in (True, False):
        infer["outputs"] = [{"name": "minutes", "parameters": {"binary_data": wanted}}]
    elif wanted == "other":
        infer["outputs"] = [{"name": "nothing"}]
    elif wanted == "class":
        infer["outputs"] = [{"name": "class", "parameters": {"binary_data": draw(st.booleans())}}]
    elif wanted == "odd":
        infer["outputs"] = [{"name": "minutes", "parameters": {"binary_data": 1, "classification": 2}}]
    elif wanted == "all":
        infer["parameters"] = {"binary_data_output": True}
    if draw(ODDLY):
        infer["inputs"][0]["data"] = [1.0]
    head = json.dumps(infer).encode()
    length = str(len(head))
    if draw(ODDLY):
        length = draw(st.sampled_from(["0", "", "-1", "1", "007", "99999999", "9" * 30, "0" * 30 + length, "x", "1.0"]))
        length = draw(st.sampled_from([length, str(len(head) - 1), str(len(head) + 1), f"000{len(head)}"]))
    headers = {"inference_header_content_length": length}
    if draw(ODDLY):
        headers = {}
    return kit.request(f"/v2/models/{name}/infer", head + raw, **headers)


@settings(max_examples=300, deadline=None, suppress_health_check=SLOW_SETUP, derandomize=True)
@given(st.data())
@pytest.mark.slow
def test_bodies_with_bytes_are_read_alike(lasting, kit, data):
    lasting.same(data.draw(binary_cases(kit)))


@settings(max_examples=150, deadline=None, suppress_health_check=SLOW_SETUP, derandomize=True)
@given(st.data(), st.sampled_from(["/predict/mixed", "/v2/models/numbers/infer", "/v2/models/mixed/infer"]))
@pytest.mark.slow
def test_any_bytes_are_read_alike(lasting, kit, data, path):
    lasting.same(kit.request(path, data.draw(st.binary(max_size=200))))


def packed(*data, name="input", datatype="FP64", shape=None):
    return {"inputs": [{"name": name, "shape": shape or [1, len(data)], "datatype": datatype, "data": data}], "id": "i"}


@pytest.mark.parametrize("text", NUMBER_TEXTS + OTHER_TEXTS)
@pytest.mark.parametrize("column", ["hour", "distance", "wind", "carrier", "gate", "kind", "is_holiday", "is_night"])
def test_every_value_is_read_alike_in_every_column(lasting, kit, column, text):
    row = {"hour": "8", "distance": "500", "wind": "1", "carrier": '"AA"', "gate": '"A1"', "kind": '"x"'}
    row |= {"is_holiday": "true", "is_night": "false"} | {column: text}
    body = "{" + ",".join(f'"{name}":{value}' for name, value in row.items()) + "}"
    lasting.same(kit.request("/predict/mixed", body.encode("utf-8", "surrogatepass")))
    types = {each.name: each.type for each in kit.signatures["mixed"].columns}
    names = {"integer": "INT64", "number": "FP32", "category": "BYTES", "boolean": "BOOL"}
    tensors = ",".join(
        f'{{"name":"{name}","shape":[1],"datatype":"{names[types[name]]}","data":[{value}]}}'
        for name, value in row.items()
    )
    body = f'{{"inputs":[{tensors}],"id":"i"}}'
    lasting.same(kit.request("/v2/models/mixed/infer", body.encode("utf-8", "surrogatepass")))


@pytest.mark.parametrize("text", NUMBER_TEXTS)
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_every_number_is_read_alike_in_a_packed_tensor(lasting, kit, text, datatype):
    body = f'{{"inputs":[{{"name":"i","shape":[1,3],"datatype":"{datatype}","data":[{text},1,{text}]}}]}}'
    lasting.same(kit.request("/v2/models/numbers/infer", body.encode()))


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v2/models/numbers/infer", packed(1, 2, 3, name="id"), 200),
        ("/v2/models/numbers/infer", packed(1, 2, 3, name="tail"), 200),
        ("/v2/models/unkeyed/infer", packed(1, 2, 3, name="id"), 200),
        ("/v2/models/numbers/infer", packed(1, 2, 3.5e38, datatype="FP32"), 200),
        ("/v2/models/tight/infer", packed(*range(12), shape=[4, 3]), 422),
        ("/v2/models/tight/infer", packed(*range(9), shape=[3, 3]), 200),
        ("/predict/tight", {"rows": [{"c": 1}] * 4}, 422),
        ("/v2/models/empty/infer", packed(1, 2, 3), 503),
        ("/predict/empty", {"a": 1}, 503),
        ("/predict/nobody", {"a": 1}, 404),
        ("/v2/models/numbers/versions/1/infer", packed(1, 2, 3), 200),
        ("/v2/models/numbers/versions/7/infer", packed(1, 2, 3), 404),
        ("/v2/models/split/versions/2/infer", packed(1, 2, 3), 200),
        ("/v2/models/numbers/infer", packed(13, 2, 3), 500),
        ("/v2/models/numbers/infer", packed(1, 2, 14), 200),
        ("/predict/numbers", {"a": 1, "b": 2, "c": 14}, 200),
        ("/predict/numbers", [], 422),
        ("/predict/numbers", b"", 400),
        ("/predict/numbers", b"[" * 100_000, 400),
        ("/v2/models/numbers/infer", b'{"inputs":[[[[[[[[[[', 422),
        ("/predict/numbers", b'{"a":' * 100_000, 400),
        ("/predict/numbers", b'{"a":1,"a":2,"c":3}', 200),
        ("/predict/numbers", b'{"a":"x","a":2,"c":3}', 200),
        ("/predict/rowed", {"x": 1}, 200),
        ("/predict/rowed", {"rows": [{"rows": 1, "x": 2}]}, 200),
        ("/predict/numberkeyed", {"id": 7.0, "x": 2}, 200),
        ("/predict/keyed", {"id": "seven", "x": 2, "y": 1}, 200),
    ],
)
def test_corners_of_bodies_are_read_alike(both, kit, path, body, status):
    assert [each.status for each in both.same(kit.request(path, body))] == [status]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_split_by_unit_gives_the_same_versions(both, kit, size):
    for i in range(40):
        row = {"a": 1.0, "b": 2.0, "c": 3.0}
        both.same(kit.request("/predict/split", row | {"tail": f"t{i}"}))
        both.same(kit.request("/predict/split", row | {"id": i}))
        both.same(kit.request("/predict/split", {"rows": [row] * size, "id": f"r{i}"}))
        both.same(
            kit.request("/predict/split", {"rows": [row | {"tail": f"t{i}{j}"} for j in range(size)]}, x_request_id="x")
        )
        both.same(kit.request("/predict/split", {"rows": [row] * size, "units": [f"u{i}{j}" for j in range(size)]}))
        both.same(kit.request("/v2/models/split/infer", packed(*[1.0] * 3 * size, shape=[size, 3]) | {"id": f"p{i}"}))
    stages = {stage for row in both.kit.recorded(both.fast) for stage in ("live", "canary") if f"'{stage}'" in row}
    assert stages == {"live", "canary"}


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("size", [1, 3])
def test_usual_requests_of_several_classes_take_the_fast_lane(both, kit, name, size):
    row = {"a": 1.0, "b": 2.0, "c": 3.0}
    if name == "mixedclasses":
        row = {"hour": 8, "distance": 500.0, "carrier": "new", "kind": "x", "is_night": False}
    before = both.fast.app.batcher.general[name]
    for i in range(12):
        rows = [row | {"c": i + j} if "c" in row else row | {"distance": float(j)} for j in range(size)]
        both.same(kit.request(f"/predict/{name}", rows[0] | {"id": f"k{i}"}))
        both.same(kit.request(f"/predict/{name}", {"rows": rows, "id": f"r{i}"}))
        if name != "mixedclasses":
            values = [value for each in rows for value in each.values()]
            both.same(kit.request(f"/v2/models/{name}/infer", packed(*values, shape=[size, 3]) | {"id": f"p{i}"}))
            tensor = {"name": "in", "shape": [size, 3], "datatype": "FP64"}
            for more in ({}, {"parameters": {"binary_data_output": True}}):
                head = {"inputs": [tensor | {"parameters": {"binary_data_size": 24 * size}}], "id": f"b{i}"} | more
                json_head = json.dumps(head).encode()
                length = str(len(json_head))
                raw = struct.pack(f"<{3 * size}d", *values)
                both.same(
                    kit.request(f"/v2/models/{name}/infer", json_head + raw, inference_header_content_length=length)
                )
    # A key beside the rows is that of all of them, so that they do not part between two versions.
    assert both.fast.app.batcher.general[name] == before
    assert any(f"'{name}'" in each for each in both.kit.recorded(both.fast))
