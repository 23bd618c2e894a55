"""Artifacts: a model as a few files of data, packed into one archive and loaded only after they are verified.

=================  ======================================================================================
``signature.json``  the typed inputs and the output
``transform.json``  the feature transform: columns in order, categories in the order of their codes, parts of times
``facts.json``      task, trainer, runtime, parity, rows: only what does not depend on when it was made
``model.*``         the model: ``onnx``, LightGBM's text, or coefficients as JSON; never a pickle
=================  ======================================================================================
"""

import hashlib
import io
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from holdfast.core import kinds
from holdfast.core.model import Facts, Model
from holdfast.core.signature import Signature
from holdfast.core.transform import Transform
from holdfast.errors import ArtifactError, HoldfastError
from holdfast.security.verifying import check_files, read_files

T = TypeVar("T")

SIGNATURE, TRANSFORM, FACTS = "signature.json", "transform.json", "facts.json"
LARGEST_BYTES = 2 << 30
"""An archive whose files are larger together is refused."""
FORMAT = 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def describe(signature: Signature, transform: Transform, facts: Facts) -> dict[str, bytes]:
    """The JSON files of an artifact: the same content gives the same bytes."""
    parts = {SIGNATURE: signature, TRANSFORM: transform, FACTS: facts}
    return {
        name: msgspec.json.format(msgspec.json.encode(part, order="sorted"), indent=1) for name, part in parts.items()
    }


def pack(files: Mapping[str, bytes]) -> bytes:
    """One tar archive; the same files give the same bytes. Raises ArtifactError for a name that has a path in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            if not _NAME.fullmatch(name):
                raise ArtifactError(f"an artifact cannot hold a file named '{name}'; use letters, digits and . _ -")
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            member.mode = 0o644
            archive.addfile(member, io.BytesIO(files[name]))
    return buffer.getvalue()


def artifact_hash(files: Mapping[str, bytes]) -> str:
    """SHA-256 of the packed files, in hexadecimal: also the key of the archive in the blob store."""
    return hashlib.sha256(pack(files)).hexdigest()


def unpack(data: bytes, directory: Path) -> None:
    """Write the files of an archive into a directory that appears whole or not at all.

    A directory that is already there is left as it is: whether its bytes are right is decided when it is loaded.
    Raises ArtifactError for a damaged archive and for anything in it but plain files with plain names.
    """
    files = _members(data)
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    try:
        for name, content in files.items():
            (scratch / name).write_bytes(content)
        scratch.chmod(0o755)
        os.rename(scratch, directory)
    except OSError:
        if not directory.is_dir():
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _members(data: bytes) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                if not member.isreg() or not _NAME.fullmatch(member.name) or member.name in files:
                    raise ArtifactError(
                        f"the archive holds '{member.name}', which is not a plain file with its own name"
                    )
                if sum(map(len, files.values())) + member.size > LARGEST_BYTES:
                    raise ArtifactError(f"the archive's files are larger than {LARGEST_BYTES} bytes")
                content = archive.extractfile(member)
                files[member.name] = content.read() if content else b""
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ArtifactError(f"the archive cannot be read: {error}; restore it from a copy") from error
    return files


def load_model(directory: Path, bundle: bytes, public_key: Path) -> Model:
    """The model in a directory, after its signature was verified and its description audited.

    Raises Tampered when a byte differs from what was signed, ArtifactError when what was signed cannot be loaded.
    """
    files = read_files(directory)
    check_files(files, bundle, public_key, where=str(directory))
    return open_model(directory, files)


def open_model(directory: Path, files: Mapping[str, bytes] | None = None) -> Model:
    """The model in a directory that this process has just written or verified; nothing is verified here."""
    files = read_files(directory) if files is None else files
    signature = _read(directory, files, SIGNATURE, Signature)
    transform = _read(directory, files, TRANSFORM, Transform)
    facts = _read(directory, files, FACTS, Facts)
    if facts.format != FORMAT:
        raise ArtifactError(f"{directory}: format {facts.format}; this version of Holdfast reads {FORMAT}: upgrade it")
    # A time is several columns of the transform, each a part of it.
    made_of = list(dict.fromkeys((column.name, column.part is not None) for column in transform.columns))
    if made_of != [(column.name, column.type == "time") for column in signature.columns]:
        raise ArtifactError(f"{directory}: signature and transform name different columns; train the version again")
    runtime = kinds.load("runtimes", facts.runtime).load(directory)
    model = Model(signature, transform, runtime, facts)
    _probe(directory, model)
    return model


def _probe(directory: Path, model: Model) -> None:
    """Ask once, so that a model of another shape fails here and not at the first request."""
    x = np.full((1, len(model.transform.columns)), np.nan, dtype=np.float32)
    try:
        output: Any = model.runtime.run(x)
    except Exception as error:  # a runtime's library raises what it likes
        raise ArtifactError(f"{directory}: its model does not run on its own columns: {error}") from error
    shape = model.signature.shape(1)
    if output.shape != shape:
        raise ArtifactError(f"{directory}: its model answers one row with shape {output.shape}, not {shape}")


def _read(directory: Path, files: Mapping[str, bytes], name: str, kind: type[T]) -> T:
    if name not in files:
        raise ArtifactError(f"{directory}: no {name}; this is not an artifact")
    try:
        return msgspec.json.decode(files[name], type=kind)
    except (msgspec.MsgspecError, HoldfastError) as error:
        raise ArtifactError(f"{directory / name}: {error}") from error
