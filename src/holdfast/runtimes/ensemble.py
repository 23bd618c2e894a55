"""Reads the trees out of an ONNX file, without the libraries of ONNX: just the form that our own trainers write.

An ONNX file is a protobuf message. The numbers of a field are those of ``onnx.proto``; a list is one entry per number,
each with its tag, and a model has tens of thousands of them, so lists are read with numpy.
"""

import re
from collections.abc import Iterator
from typing import Any, NoReturn

import msgspec
import numpy as np

from holdfast.errors import ArtifactError

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float32]]

VARINT, EIGHT_BYTES, SIZED, FOUR_BYTES = 0, 1, 2, 5
FLOATS, INTS, STRINGS = 0x3D, 0x40, 0x4A
"""Tags of the entries of a list in an attribute."""
TYPE = 0xA0
"""Tag of an attribute's type, which follows its list."""
MODES = re.compile(rb"\x4a\x0aBRANCH_LEQ|\x4a\x04LEAF")

NODES = ("treeids", "nodeids", "featureids", "truenodeids", "falsenodeids", "missing_value_tracks_true")
LISTS = {f"nodes_{name}": "i" for name in NODES} | {"nodes_modes": "b", "nodes_values": "f"}
TARGETS = {"target_treeids": "i", "target_nodeids": "i", "target_ids": "i", "target_weights": "f"}
SETTINGS = {"aggregate_function": b"SUM", "post_transform": b"NONE"}
"""What the node of the trees must hold, and nothing else: lists by what their entries are, and settings; and how many
sums there are."""
SUMS = "n_targets"
LINKS: tuple[list[bytes], ...] = ([], [b"Sigmoid"], [b"Softmax"])
"""What may come behind the trees; the softmax of several sums."""
LARGEST_NUMBER = 1 << 31
"""Numbers of trees and nodes lie below it, so that two of them fit one of 64 bits."""


class Ensemble(msgspec.Struct, frozen=True, kw_only=True):
    """Trees whose leaves are added up, into a sum per class where there are `classes`. One entry per node: `true` and
    `false` are places of nodes, -1 in a leaf.

    A row goes on to `true` where its value of `feature` is at most `threshold`, or missing and `missing_true`.
    """

    columns: int
    logistic: bool
    """Whether the answer is 1 / (1 + exp(-sum)), not the sum."""
    roots: Any
    feature: Any
    threshold: Any
    missing_true: Any
    true: Any
    false: Any
    value: Any
    """Of a leaf, float64; 0 elsewhere."""
    classes: int = 0
    """How many sums there are where the answer is the softmax of several; 0 for one."""
    sum_of_root: Any = None
    """Which sum each tree belongs to, in that case."""


def read_ensemble(data: bytes) -> Ensemble:
    """The trees of an ONNX file. Raises ArtifactError for any other graph, and for what is not whole."""
    try:
        return _read(data)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:  # one field where another belongs
        raise ArtifactError(f"not the trees of an ONNX file: {error}") from error


def _read(data: bytes) -> Ensemble:
    graph = _message(_message(data)[7][0])
    nodes = [_message(node) for node in graph[1]]
    kinds = [node[4][0] for node in nodes]
    if kinds[:1] != [b"TreeEnsembleRegressor"] or kinds[1:] not in LINKS or 5 in graph:
        _refuse("its graph computes something else")
    ports = [_message(graph[11][0])[1][0], *(name for node in nodes for name in (*node[1], *node[2]))]
    ports.append(_message(graph[12][0])[1][0])
    if len(graph[11]) != 1 or len(graph[12]) != 1 or ports[::2] != ports[1::2]:
        _refuse("its nodes do not form a chain from one input to one output")
    shape = _message(_message(_message(_message(graph[11][0])[2][0])[1][0])[2][0])
    columns = _message(shape[1][1])[1][0]
    given = dict(_attribute(one) for one in nodes[0][5])
    if given.keys() != {*LISTS, *TARGETS, *SETTINGS, SUMS} or not isinstance(columns, int):
        _refuse(f"it states {', '.join(sorted(given))}")
    if wrong := [name for name, value in SETTINGS.items() if given[name] != value]:
        _refuse(f"its {wrong[0]} cannot be taken")
    classes = given[SUMS] if kinds[1:] == [b"Softmax"] else 0
    if given[SUMS] != max(1, classes) or classes == 1 or any(5 in node for node in nodes[1:]):
        _refuse(f"its {SUMS} cannot be taken")
    for lists in (LISTS, TARGETS):
        if len({len(given[name]) for name in lists}) > 1 or any(given[n].dtype.kind != k for n, k in lists.items()):
            _refuse("its lists do not fit each other")
    return _checked(given, columns=columns, logistic=kinds[1:] == [b"Sigmoid"], classes=classes)


def _checked(given: dict[str, Any], *, columns: int, logistic: bool, classes: int) -> Ensemble:
    """The ensemble of a node's attributes, after its trees were found to be trees."""
    tree, node, feature, true_id, false_id, missing = (given[f"nodes_{name}"] for name in NODES)
    threshold, leaf, target = given["nodes_values"], given["nodes_modes"], given["target_nodeids"]
    numbers = np.concatenate([tree, node, true_id, false_id, target, given["target_treeids"]])
    if numbers.min() < 0 or numbers.max() >= LARGEST_NUMBER or (np.diff(tree) < 0).any():
        _refuse("its trees and nodes are not numbered one after the other")
    inner = np.flatnonzero(~leaf)
    keys = tree * LARGEST_NUMBER + node
    true, false = (np.full(len(keys), -1) for _ in range(2))
    for child, ids in ((true, true_id), (false, false_id)):
        child[inner] = _places(keys, (tree * LARGEST_NUMBER + ids)[inner])
    ends = _places(keys, given["target_treeids"] * LARGEST_NUMBER + target)
    value = np.zeros(len(keys))
    np.add.at(value, ends, given["target_weights"].astype(np.float64))
    roots = np.flatnonzero(np.diff(tree, prepend=-1))
    parents = np.bincount(np.concatenate([true[inner], false[inner]]), minlength=len(keys))
    if parents[roots].any() or parents.sum() != len(keys) - len(roots) or parents.max() > 1:
        _refuse("its nodes do not form trees")
    sums = np.zeros(len(keys), dtype=np.int64)
    sums[ends] = given["target_ids"]
    of_root = np.maximum.reduceat(sums, roots)
    same_sum = (given["target_ids"] == np.repeat(of_root, np.diff(roots, append=len(keys)))[ends]).all()
    if not leaf[ends].all() or not same_sum or of_root.max() >= max(1, classes) or not np.isfinite(value).all():
        _refuse("its leaves are not numbers of one output")
    if classes and len(np.unique(of_root)) < classes:
        _refuse("one of its sums has no tree")
    if (feature[inner] < 0).any() or (feature[inner] >= columns).any() or np.isnan(threshold[inner]).any():
        _refuse("a split names no column or no threshold")
    return Ensemble(
        columns=columns,
        logistic=logistic,
        roots=roots,
        feature=feature,
        # Zero of either sign is the same threshold, but not the same bits.
        threshold=threshold + np.float32(0),
        missing_true=missing > 0,
        true=true,
        false=false,
        value=value,
        classes=classes,
        sum_of_root=of_root if classes else None,
    )


def _places(keys: Ints, wanted: Ints) -> Ints:
    """Where each wanted key stands among the keys. Raises ArtifactError for one that is not there, or there twice."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    if (np.diff(ordered) == 0).any():
        _refuse("two of its nodes have the same number")
    found = np.minimum(np.searchsorted(ordered, wanted), len(keys) - 1)
    if (ordered[found] != wanted).any():
        _refuse("it names a node that it does not have")
    return order[found]


def _attribute(data: bytes) -> tuple[str, Any]:
    """Name and value of an attribute: a number, bytes, or a list as an array; modes as whether each is a leaf."""
    single: Any = None
    name, at = "", 0
    while at < len(data):
        if data[at] == INTS:
            return name, _ints(data[at:])
        if data[at] == FLOATS:
            return name, _floats(data[at:])
        if data[at] == STRINGS:
            return name, _leaves(data[at:])
        field, value, at = _field(data, at)
        if field == 1:
            name = value.decode()
        elif field in (3, 4):
            single = value
    return name, single


def _ints(data: bytes) -> Ints:
    numbers = _varints(data)
    tags, values = numbers[::2], numbers[1::2]
    count = int(np.argmin(tags == INTS)) if (tags != INTS).any() else len(tags)
    if len(tags) != len(values) or (tags[count:] != TYPE).any():
        _refuse("a list of whole numbers is not whole")
    return values[:count].astype(np.int64)


def _floats(data: bytes) -> Floats:
    entries = np.frombuffer(data[: len(data) // 5 * 5], dtype=np.uint8).reshape(-1, 5)
    count = int(np.argmin(entries[:, 0] == FLOATS)) if (entries[:, 0] != FLOATS).any() else len(entries)
    _only_type(data[5 * count :])
    return np.ascontiguousarray(entries[:count, 1:]).view("<f4").reshape(-1).astype(np.float32)


def _leaves(data: bytes) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    modes = MODES.findall(data)
    _only_type(data[sum(map(len, modes)) :])
    return np.array([mode.endswith(b"F") for mode in modes], dtype=np.bool_)


def _only_type(rest: bytes) -> None:
    if rest and (rest[0] != TYPE or len(rest) != 3):
        _refuse("a list holds something else")


def _varints(data: bytes) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    """All numbers of a run of varints: seven bits a byte, the lowest first; the last byte of each is below 128."""
    octets = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(octets < 128)
    if not len(ends) or ends[-1] != len(octets) - 1:
        _refuse("a number is cut off")
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(octets)) - np.repeat(starts, ends - starts + 1)
    if place.max() > 9:
        _refuse("a number is too long")
    shifted = (octets & 127).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(shifted, starts)


def _message(data: bytes | int) -> dict[int, list[Any]]:
    """The fields of a message by number: whole numbers, and bytes."""
    if isinstance(data, int):
        _refuse("a number stands where a message belongs")
    found: dict[int, list[Any]] = {}
    for number, value in _fields(data):
        found.setdefault(number, []).append(value)
    return found


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(data):
        number, value, at = _field(data, at)
        yield number, value


def _field(data: bytes, at: int) -> tuple[int, Any, int]:
    """Number and value of the field at a place, and where the next one begins."""
    tag, at = _varint(data, at)
    if tag & 7 == VARINT:
        value, at = _varint(data, at)
        return tag >> 3, value, at
    if tag & 7 == SIZED:
        size, at = _varint(data, at)
    elif tag & 7 in (EIGHT_BYTES, FOUR_BYTES):
        size = 8 if tag & 7 == EIGHT_BYTES else 4
    else:
        _refuse("it is no protobuf message")
    if at + size > len(data):
        _refuse("it is cut off")
    return tag >> 3, data[at : at + size], at + size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while data[at] > 127:
        number |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if shift > 63:
            _refuse("a number is too long")
    return number | data[at] << shift, at + 1


def _refuse(why: str) -> NoReturn:
    raise ArtifactError(f"not the trees of an ONNX file: {why}")
