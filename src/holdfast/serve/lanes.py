"""Loaded versions, ready to answer: made from routes, beside the ones in force, before anything is switched."""

import logging
from collections.abc import Callable, Iterator, Mapping

import msgspec
import numpy as np

from holdfast.core.answerer import Answerer
from holdfast.core.inputs import Reader, reader_of
from holdfast.core.model import Model, TwoModels, two_in_one
from holdfast.core.routes import RoutedSystem, RoutedVersion, Routes, ServingStage
from holdfast.core.signature import Signature
from holdfast.errors import HoldfastError, NotFound, StateError
from holdfast.observe.tallies import Cached
from holdfast.serve.caching import CacheCounts, CachedModel, LookUpCount
from holdfast.serve.classphrases import ClassPhrases
from holdfast.serve.phrases import Phrases
from holdfast.serve.reading import Reading
from holdfast.serve.recording import FloatArray, IntArray
from holdfast.serve.traffic import Bools, Words

log = logging.getLogger(__name__)

LoadModel = Callable[[RoutedVersion], Model]
"""Verifies and loads a version's artifact. Raises ArtifactError when it cannot be used."""


class Lane(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One loaded version of one system in one stage."""

    by: Answerer
    model: Model | CachedModel
    artifact: str
    names: frozenset[str]
    """Input columns of its signature."""
    reader: Reader
    phrases: Phrases

    @property
    def signature(self) -> Signature:
        """What the version takes."""
        return self.by.signature


class Pair(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a live version and its canary share where they take the same columns: rows of both are read at once."""

    reader: Reader
    low: FloatArray
    """Lower ends of the ranges (2, columns): of the live version, then of the canary."""
    high: FloatArray
    within: tuple[FloatArray, FloatArray]
    """The range that lies within both (columns,)."""
    model: TwoModels | None
    """Runs rows of both at once; None where they are run one after the other."""

    def ranges(self, which: Words) -> "PairRanges":
        """The ranges of rows (n,): 0 is one of the live version, 1 one of the canary."""
        return PairRanges(self, which)


class PairRanges:
    """The range of each row is that of its version."""

    def __init__(self, pair: Pair, which: Words) -> None:
        self.within = pair.within
        self._pair = pair
        self._which = which

    def beyond(self, numbers: FloatArray, index: IntArray) -> Bools:
        """Which numbers of some rows lie outside the range of their row."""
        of = self._which[index]
        beyond: Bools = (numbers < self._pair.low[of]) | (numbers > self._pair.high[of])
        return beyond


class Lanes(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """How one system answers: its route and the versions behind it."""

    name: str
    routed: RoutedSystem
    live: Lane | None = None
    canary: Lane | None = None
    reading: Reading | None = None
    """Reads the usual requests in a single pass; None where the versions do not take the same columns."""
    pair: Pair | None = None
    """For reading rows of both versions at once; None where that cannot be."""
    asked: Mapping[str, Lane] = {}
    """By version, for requests that name one. What these answer is recorded as of no release: it did not come to the
    version by chance, so no release may be judged by it."""
    held: str = ""
    """Why newer routes of this system are not in force; empty when they are."""

    def lane(self, version: str = "") -> Lane:
        """The lane of a version, or the live one.

        Raises NotFound for a version that answers no requests, StateError where none is live.
        """
        if version:
            if version not in self.asked:
                what = f"version of '{self.name}' that answers requests called"
                raise NotFound(what, version, self.asked)
            return self.asked[version]
        if self.live is None:
            if self.routed.elsewhere is not None:
                raise StateError(
                    f"'{self.name}' is served elsewhere and only watched here; POST /predictions/{self.name} takes "
                    "what it answered"
                )
            if self.held:  # the reason names files of this machine: it is for its operator
                raise StateError(f"'{self.name}' cannot be served now; `holdfast status` on its machine says why")
            raise StateError(f"no version of '{self.name}' is live; release one, then ask again")
        return self.live

    def all(self) -> Iterator[Lane]:
        """The lanes there are, live first."""
        yield from (lane for lane in (self.live, self.canary) if lane is not None)

    @property
    def entries(self) -> int:
        """Answers that are kept; those that two versions of one artifact share are counted once."""
        caches = [lane.model for lane in self.all() if isinstance(lane.model, CachedModel)]
        own = [one for place, one in enumerate(caches) if not any(map(one.shares_answers, caches[:place]))]
        return sum(cache.entries for cache in own)


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """Routes with the lanes of every system."""

    routes: Routes = Routes()
    systems: Mapping[str, Lanes] = {}
    counts: Mapping[str, CacheCounts] = {}
    """What every system looked up since the worker started, also one that is not routed now; handed on."""

    def versions(self) -> list[tuple[str, str]]:
        """System and version of what answers."""
        return [(name, lane.by.version) for name, lanes in self.systems.items() for lane in lanes.all()]

    @property
    def held(self) -> dict[str, str]:
        """Systems that still follow older routes, and why."""
        return {name: lanes.held for name, lanes in self.systems.items() if lanes.held}

    def caches(self) -> dict[str, Cached]:
        """The answer caches by system, where there are or were any."""
        found: dict[str, Cached] = {}
        for name, counts in self.counts.items():
            if by_version := counts.by_version():
                lanes = self.systems.get(name)
                found[name] = Cached(versions=by_version, entries=0 if lanes is None else lanes.entries)
        return found


def prepare(routes: Routes, in_force: Prepared, load: LoadModel) -> Prepared:
    """Lanes for new routes; what is loaded already is taken over by artifact hash.

    A system of which a version cannot be loaded keeps the lanes that it had, whatever becomes of the others.
    """
    systems: dict[str, Lanes] = {}
    counts = dict(in_force.counts)
    for name, routed in routes.systems.items():
        old = in_force.systems.get(name)
        try:
            systems[name] = _lanes(name, routed, old, load, counts.setdefault(name, CacheCounts()))
        except Exception as error:  # loading runs foreign code
            if not isinstance(error, HoldfastError):
                log.exception("a version of '%s' could not be loaded", name)
            why = f"{type(error).__name__}: {error}"
            systems[name] = msgspec.structs.replace(old or Lanes(name=name, routed=routed), held=why)
    return Prepared(routes=routes, systems=systems, counts=counts)


def _lanes(name: str, routed: RoutedSystem, old: Lanes | None, load: LoadModel, counts: CacheCounts) -> Lanes:
    loaded = {lane.artifact: lane.model for lane in old.all()} if old else {}

    def lane(stage: ServingStage, version: RoutedVersion | None) -> Lane | None:
        if version is None:
            return None
        model = loaded.get(version.artifact)
        if model is None:
            model = load(version)
        if routed.serve.cache:
            model = _cached(model, routed.serve.cache, counts.of(version.version))
        elif isinstance(model, CachedModel):
            model = model.model
        loaded[version.artifact] = model
        return _lane(name, routed, stage, version, model)

    live, canary = lane("live", routed.live), lane("canary", routed.canary)
    return Lanes(
        name=name,
        routed=routed,
        live=live,
        canary=canary,
        asked={each.by.version: _asked(each) for each in (live, canary) if each is not None},
        reading=_reading(routed, live, canary),
        pair=_pair(live, canary),
    )


def _asked(lane: Lane) -> Lane:
    return msgspec.structs.replace(lane, by=msgspec.structs.replace(lane.by, release=""))


def _cached(model: Model | CachedModel, size: int, count: LookUpCount) -> CachedModel:
    """The model behind a cache of this size. A cache of the same size is kept with what is in it."""
    if isinstance(model, CachedModel):
        if model.size == size:
            return model.counted_in(count)
        model = model.model
    return CachedModel(model, size, count)


def _reading(routed: RoutedSystem, live: Lane | None, canary: Lane | None) -> Reading | None:
    if live is None:
        return None
    if canary is not None and _shape(canary.signature) != _shape(live.signature):
        return None
    return Reading(live.signature, routed.key, routed.unit)


def _pair(live: Lane | None, canary: Lane | None) -> Pair | None:
    if live is None or canary is None or live.reader.texts or isinstance(live.model, CachedModel):
        return None  # a cache answers, keeps and counts only what its own version is asked
    rules = [
        [(column.name, column.type, column.nullable, column.outside) for column in lane.signature.columns]
        for lane in (live, canary)
    ]
    if rules[0] != rules[1] or live.signature.outputs != canary.signature.outputs or live.signature.classes:
        return None
    low, high = (np.stack([getattr(lane.reader, end) for lane in (live, canary)]) for end in ("low", "high"))
    return Pair(
        reader=live.reader,
        low=low,
        high=high,
        within=(low.max(axis=0), high.min(axis=0)),
        model=_two_in_one(live.model, canary.model),
    )


def _two_in_one(live: Model | CachedModel, canary: Model | CachedModel) -> TwoModels | None:
    return two_in_one(live, canary) if isinstance(live, Model) and isinstance(canary, Model) else None


def _shape(signature: Signature) -> list[tuple[str, str]]:
    return [(column.name, column.type) for column in signature.columns]


def _lane(
    name: str, routed: RoutedSystem, stage: ServingStage, version: RoutedVersion, model: Model | CachedModel
) -> Lane:
    by = Answerer(
        system=name,
        version=version.version,
        stage=stage,
        release=routed.release,
        signature=model.signature,
        signature_hash=model.signature.hash(),
    )
    return Lane(
        by=by,
        model=model,
        artifact=version.artifact,
        names=frozenset(column.name for column in model.signature.columns),
        reader=reader_of(model.signature),
        phrases=_phrases(name, version.version, stage, model.signature),
    )


def _phrases(system: str, version: str, stage: ServingStage, signature: Signature) -> Phrases:
    output, classes = signature.output, signature.classes
    if classes:
        return ClassPhrases(system=system, version=version, stage=stage, output=output, classes=classes)
    return Phrases(system=system, version=version, stage=stage, output=output)
