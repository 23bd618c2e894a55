"""Where the state of one or more systems lives: the ports, opened, and the files beside them."""

import fcntl
import os
import shutil
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from holdfast.core import kinds, routes
from holdfast.core.answerer import ELSEWHERE
from holdfast.core.classes import in_order, task_of
from holdfast.core.model import Model
from holdfast.core.protocols import ARRIVALS, PREDICTIONS, Blobs, Catalog, Lake, Transaction
from holdfast.core.records import Route, SystemFile, Token, Version
from holdfast.core.routes import RoutedSystem, RoutedVersion, Routes, ServedElsewhere, TokenHash
from holdfast.core.spec import Predictions, SystemSpec
from holdfast.core.specelsewhere import stated_signature
from holdfast.core.specfile import parse_spec, spec_hash
from holdfast.errors import ArtifactError, HoldfastError, NotFound, StateError
from holdfast.flow.registry import current_route
from holdfast.places import CATALOG, ROUTES, RUN
from holdfast.security import artifacts


class State:
    """The ports of one state directory. Several systems share it; every key begins with a system's name."""

    def __init__(self, directory: Path, catalog: Catalog, lake: Lake, blobs: Blobs) -> None:
        self.directory = directory
        self.catalog = catalog
        self.lake = lake
        self.blobs = blobs
        self._models: dict[str, Model] = {}
        self._specs: dict[str, SystemSpec] = {}

    @property
    def routes_path(self) -> Path:
        """The file that workers follow."""
        return self.directory / ROUTES

    @property
    def run_directory(self) -> Path:
        """Where running processes leave their signs of life."""
        return self.directory / RUN

    @property
    def keys_directory(self) -> Path:
        """Where the local key pair lies that artifacts are signed with."""
        return self.directory / "keys"

    def close(self) -> None:
        """Let go of lake and catalog."""
        self.lake.close()
        self.catalog.close()

    def unpacked(self, version: Version) -> RoutedVersion:
        """The artifact of a version on disk, with its bundle beside it."""
        directory = self.directory / "models" / version.artifact
        bundle = directory.with_suffix(f".{version.bundle[:16]}.sig")
        if not directory.exists():
            artifacts.unpack(self.blobs.get(version.artifact), directory)
        if not bundle.exists():
            _write_atomically(bundle, self.blobs.get(version.bundle))
        return RoutedVersion(
            version=version.id, artifact=version.artifact, directory=str(directory), bundle=str(bundle)
        )

    def mend(self, version: Version) -> bool:
        """Unpack a version's artifact anew from the blobs where the files on disk are not what was signed.

        Returns whether that was needed. Raises Tampered when the stored blob is not whole either.
        """
        routed = self.unpacked(version)
        try:
            self.load_model(routed)
        except ArtifactError:
            shutil.rmtree(routed.directory, ignore_errors=True)
            Path(routed.bundle).unlink(missing_ok=True)
            self.load_model(self.unpacked(version))
            return True
        return False

    def model(self, version: Version) -> Model:
        """A version's model, verified when it is loaded. Raises Tampered."""
        if version.artifact not in self._models:
            self._models[version.artifact] = self.load_model(self.unpacked(version))
        return self._models[version.artifact]

    def load_model(self, routed: RoutedVersion) -> Model:
        """Verify and load an unpacked artifact."""
        return load_routed(self.directory, routed)

    def routes(self, tx: Transaction) -> Routes:
        """The routes of all systems, as the catalog has them. Raises StateError where those of one cannot be made."""
        routes, problems = self._routes(tx, {})
        if problems:
            raise StateError("; ".join(problems))
        return routes

    def _routes(self, tx: Transaction, in_force: Mapping[str, RoutedSystem]) -> tuple[Routes, list[str]]:
        """The routes, and what is wrong: a system whose routes cannot be made keeps those in force."""
        systems, problems = {}, []
        for file in tx.find(SystemFile):
            try:
                systems[file.system] = self._routed(tx, self.spec(file), current_route(tx, file.system))
            except HoldfastError as error:
                problems.append(f"the routes of '{file.system}' could not be made and stay as they are: {error}")
                if file.system in in_force:
                    systems[file.system] = in_force[file.system]
        tokens = tx.find(Token, "*", state=("active",))
        active = tuple(TokenHash(sha256=t.sha256, role=t.role, name=t.name) for t in tokens)
        return Routes(generation=self.generation(tx), systems=systems, tokens=active), problems

    def generation(self, tx: Transaction) -> int:
        """The number of the routes that the catalog holds: it grows with every change of a route or a token."""
        routed = sum(current_route(tx, file.system).generation for file in tx.find(SystemFile))
        return routed + sum(2 if token.state == "revoked" else 1 for token in tx.find(Token, "*"))

    def publish_routes(self) -> int:
        """Write the routes file if the catalog has moved on; returns the generation in force.

        Processes that publish at the same time wait for one another, so that none writes what another has overtaken.
        Raises StateError, after publishing the rest, for systems whose routes cannot be made; theirs stay in force.
        """
        self.run_directory.mkdir(parents=True, exist_ok=True)
        with (self.run_directory / "routes.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = self.routes_path.read_bytes() if self.routes_path.exists() else b""
            with self.catalog.read() as tx:
                wanted, problems = self._routes(tx, _systems_in(before))
            data = routes.encode(wanted)
            if data != before:
                _write_atomically(self.routes_path, data)
        if problems:
            raise StateError("; ".join(problems))
        return wanted.generation

    def spec(self, file: SystemFile) -> SystemSpec:
        """The system that a file in force describes.

        It was checked when it was put in force, and is kept read: checking loads every plug-in that it names, which
        takes a second that a rollback does not have.
        """
        known = self._specs.get(file.spec_hash)
        if known is None:
            known = _kept_spec(self._specs_directory / f"{file.spec_hash}.json", file.spec_hash)
            if known is None:
                known = parse_spec(file.text, file=file.path)
                self.keep_spec(known)
            self._specs[file.spec_hash] = known
        return known

    def keep_spec(self, spec: SystemSpec) -> None:
        """Keep a checked system, so that `spec` need not check it again."""
        _write_atomically(self._specs_directory / f"{spec_hash(spec)}.json", msgspec.json.encode(spec))

    @property
    def _specs_directory(self) -> Path:
        return self.directory / "specs"

    def _routed(self, tx: Transaction, spec: SystemSpec, route: Route) -> RoutedSystem:
        def version(id: str) -> RoutedVersion | None:
            found = tx.get(Version, spec.system, id) if id else None
            return None if found is None else self.unpacked(found)

        task = task_of(spec)
        return RoutedSystem(
            task=spec.task,
            output=task.output,
            classes=task.classes,
            live=version(route.live),
            canary=version(route.canary),
            canary_share=route.canary_share,
            serve=spec.serve,
            key=spec.data.key,
            unit=spec.data.unit or "",
            is_listwise=task.is_listwise,
            release=route.release,
            elsewhere=None if spec.predictions is None else _elsewhere(spec, spec.predictions, task.output),
        )


def _elsewhere(spec: SystemSpec, predictions: Predictions, output: str) -> ServedElsewhere:
    return ServedElsewhere(
        signature=stated_signature(spec, output), score=predictions.score or output, version=predictions.version
    )


def load_routed(directory: Path, routed: RoutedVersion) -> Model:
    """Verify and load an unpacked artifact of the state in `directory`; needs neither catalog nor blobs.

    Raises Tampered where a byte is not what was signed, ArtifactError where it cannot be loaded.
    """
    try:
        bundle = Path(routed.bundle).read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"{routed.bundle}: no signature bundle ({error.strerror}); restore it from a copy"
        ) from error
    return artifacts.load_model(Path(routed.directory), bundle, directory / "keys" / "public.pem")


def put_in_force(state: State, spec: SystemSpec, *, path: Path, text: str, now: datetime, by: str) -> bool:
    """Store a system file, so that commands and processes know the system by its name; False where it was already.

    Raises StateError where what is on record for the system would mean something else by the new file.
    """
    file = SystemFile(system=spec.system, id="file", path=str(path), text=text, spec_hash=spec_hash(spec), at=now)
    with state.catalog.read() as tx:
        known = tx.get(SystemFile, spec.system, "file")
    if known is not None and known.spec_hash != file.spec_hash:
        _must_keep_answers(state, state.spec(known), spec)
    with state.catalog.begin() as tx:
        before = tx.get(SystemFile, spec.system, "file")
        if before is not None and (before.spec_hash, before.path) == (file.spec_hash, file.path):
            return False
        if before is not None and tx.find(Version, spec.system, newest=1):
            _must_keep_classes(state.spec(before), spec)
        state.keep_spec(spec)
        tx.put(file)
        detail = {"spec_hash": file.spec_hash}
        tx.audit(
            at=now, actor=by, action="system file put in force", system=spec.system, subject=file.path, detail=detail
        )
    return True


def _must_keep_classes(before: SystemSpec, spec: SystemSpec) -> None:
    """Raises StateError where versions were made for other classes: their answers could not be compared."""
    was, now = (in_order(each.data.label.classes) for each in (before, spec))
    if was != now:
        said = [", ".join(names) or "none" for names in (was, now)]
        raise StateError(
            f"data.label.classes of '{spec.system}' were {said[0]} and are {said[1]}; its versions answer the former, "
            "so they cannot change. Give the changed system a name of its own, and move the callers when it has proved "
            "itself"
        )


def _must_keep_answers(state: State, before: SystemSpec, spec: SystemSpec) -> None:
    """Raises StateError where answers of elsewhere are on record that the changed file could not read.

    A class may be added: answers from before it gave it 0.
    """
    if before.predictions is None or spec.predictions is None:
        return
    was, now = (in_order(each.data.label.classes) for each in (before, spec))
    gone = [name for name in was if name not in now]
    if spec.task == before.task and not gone:
        return
    if not _has_told_answers(state, spec.system):
        return
    if spec.task != before.task:
        what = f"predictions.task of '{spec.system}' was {before.task} and is {spec.task}"
        may = "so it cannot change"
    else:
        what = f"data.label.classes of '{spec.system}' were {', '.join(was)} and no longer have {', '.join(gone)}"
        may = "so classes may be added, but none removed or renamed"
    raise StateError(
        f"{what}; the answers on record are of the former, {may}. Give the changed system a name of its own"
    )


def _has_told_answers(state: State, system: str) -> bool:
    """Whether answers that were given elsewhere are on record."""
    if not state.lake.scan(ARRIVALS.name, system).is_empty():
        return True
    recorded = state.lake.scan(PREDICTIONS.name, system)
    return not recorded.is_empty() and ELSEWHERE in recorded["stage"]


def open_state(directory: Path, *, record: str = "process") -> State:
    """The state in a directory: SQLite, files, content-addressed blobs. Made when it is not there.

    Raises StateError where a catalog was there and is gone.
    """
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / CATALOG).exists() and (directory / ROUTES).exists():
        # A new catalog would be empty, and routes made of it would end the serving that still goes on.
        raise StateError(
            f"{directory / CATALOG} is gone, though this state was in use; restore it from a backup. "
            "What was served is served on meanwhile"
        )
    catalog = kinds.load("engines", "catalog+sqlite")(directory / CATALOG)
    lake = kinds.load("engines", "lake+files")(directory / "lake", catalog.manifest, record=record)
    return State(directory, catalog, lake, kinds.load("engines", "blobs+files")(directory / "blobs"))


def memory_state(directory: Path) -> State:
    """State in memory, for backtests and tests; `directory` only holds keys and unpacked models."""
    load: Callable[[str], type] = lambda name: kinds.load("engines", name)  # noqa: E731
    return State(directory, load("catalog+memory")(), load("lake+memory")(), load("blobs+memory")())


def system_file(tx: Transaction, system: str) -> SystemFile:
    """The system file in force. Raises NotFound naming the systems of this state."""
    file = tx.get(SystemFile, system, "file")
    if file is None:
        raise NotFound("system", system, [f.system for f in tx.find(SystemFile)])
    return file


def _systems_in(data: bytes) -> Mapping[str, RoutedSystem]:
    """The systems of routes in force; none where there are no whole routes."""
    try:
        return routes.decode(data).systems
    except StateError:
        return {}


def _kept_spec(path: Path, hash: str) -> SystemSpec | None:
    """The system that was kept; None where it was not, or is not what the hash says."""
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=SystemSpec)
    except (OSError, msgspec.MsgspecError):
        return None
    return kept if spec_hash(kept) == hash else None


def _write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
