"""One profile of one version: measured in this process, beside what the workers measured."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from holdfast.core.clock import Clock, stopwatch_s
from holdfast.core.records import Version
from holdfast.core.routes import RoutedSystem
from holdfast.core.spec import SystemSpec
from holdfast.profiling.advice import advice_of
from holdfast.profiling.inputs import inputs_of
from holdfast.profiling.live import live_of
from holdfast.profiling.measured import Profile
from holdfast.profiling.measuring import (
    CACHE,
    WHOLE_S,
    OnProgress,
    measured_cases,
    measured_recording,
    measured_repeats,
)
from holdfast.profiling.models import facts_of
from holdfast.profiling.path import Lakes
from holdfast.state import State

SCRATCH = ".profile-"


def profiled(
    state: State,
    spec: SystemSpec,
    version: Version,
    clock: Clock,
    *,
    is_live: bool,
    on_progress: OnProgress = lambda share: None,
    whole_s: float = WHOLE_S,
) -> Profile:
    """Where the time of a version's requests goes. Writes to a directory of its own, which is gone afterwards.

    Raises StateError where there are no rows to measure with, Tampered or ArtifactError where it cannot be loaded.
    """
    began_s = stopwatch_s()
    where = state.unpacked(version)
    model = state.load_model(where)
    inputs = inputs_of(state, version, model.signature, clock)
    routed = RoutedSystem(
        task=spec.model.task,
        output=model.signature.output,
        classes=model.signature.classes,
        live=where,
        # A cache would answer rows that come round again; what it would do for real ones is measured apart.
        serve=msgspec.structs.replace(spec.serve, cache=0),
        key=spec.data.key,
        unit=spec.data.unit or "",
        release="profile",
    )
    with scratch(state) as directory:
        lakes = Lakes(directory)
        try:
            cases = measured_cases(
                spec.system, routed, model, inputs, lakes, clock, on_progress=on_progress, whole_s=whole_s
            )
            recording = measured_recording(spec.system, spec.serve.record, model, inputs, lakes)
        finally:
            lakes.close()
    is_recorded = inputs.facts.origin == "recorded"
    profile = Profile(
        system=spec.system,
        version=version.id,
        is_live=is_live,
        cores=len(os.sched_getaffinity(0)),
        cache=spec.serve.cache,
        inputs=inputs.facts,
        model=facts_of(model, Path(where.directory)),
        cases=cases,
        recording=recording,
        repeats=measured_repeats(model, inputs.rows, spec.serve.cache or CACHE) if is_recorded else None,
        live=live_of(state, spec.system),
    )
    return msgspec.structs.replace(profile, advice=advice_of(profile), took_s=stopwatch_s() - began_s)


@contextmanager
def scratch(state: State) -> Iterator[Path]:
    """A directory on the lake's file system, outside the lake so that nothing in it is ever read as recorded.

    Also takes away what a profile that was killed left there.
    """
    lake = (state.directory / "lake").resolve()
    is_apart = lake.exists() and lake.stat().st_dev != state.directory.stat().st_dev
    parent = lake.parent if is_apart else state.directory
    for left in parent.glob(f"{SCRATCH}*"):
        with suppress(OSError), _held(left):
            shutil.rmtree(left, ignore_errors=True)
    directory = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=parent))
    with _held(directory):
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Be the only one on a directory. Raises BlockingIOError; the kernel lets go when the process dies."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)
