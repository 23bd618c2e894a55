"""Every error Holdfast raises on purpose, as one tree.

    HoldfastError                    exit code 1
    |-- SpecError                    2  the system file is wrong; carries every problem found
    |-- UnknownKind                  2  no plug-in of that name; carries the near miss
    |-- NotFound                     1  no such system, model, version, prediction ...; near miss named
    |-- DataError                    3  data could not be read or broke a hard expectation
    |   |-- SourceError                 a file is missing, truncated, or not what its name says
    |   `-- ExpectationFailed           the snapshot was stopped; carries the verdicts
    |-- InvalidInput                 4  a value does not fit a signature: row, column, value, expected
    |-- ArtifactError                5  a model artifact cannot be used
    |   |-- Tampered                    its bytes are not those that were signed
    |   `-- ParityFailed                the converted model does not equal the original
    |-- GateRefused                  6  a candidate did not pass its gates
    |-- JobFailed                    7  a job's process failed, was killed, or ran out of memory
    |-- StateError                   8  the state directory or catalog cannot be used as asked
    |   |-- AlreadyRunning              another `up` holds this state
    |   |-- CorruptSegment              recorded bytes fail their checksum
    |   |   `-- OtherFormat                 they are of another format version, and whole
    |   `-- Conflict                    somebody else changed this in the meantime
    `-- Overloaded                   9  a bounded queue is full; try again later

A message says what happened, where, and what to do next.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class HoldfastError(Exception):
    """Base of all errors raised on purpose. `exit_code` is what the command line returns."""

    exit_code = 1


class Problem:
    """One thing wrong in a system file: where it stands and what it is.

    `line` counts from 1 (0 when unknown); `path` is like ``monitors[2].check``.
    """

    def __init__(self, message: str, *, path: str = "", line: int = 0) -> None:
        self.message = message
        self.path = path
        self.line = line

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class SpecError(HoldfastError):
    """The system file is wrong. All problems found are in `problems`."""

    exit_code = 2

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        self.file = file
        self.problems = tuple(problems)
        super().__init__("\n".join(_placed(file, problem) for problem in problems))


def _placed(file: str, problem: Problem) -> str:
    return f"{file}:{problem.line} {problem}" if problem.line else f"{file}: {problem}"


class UnknownKind(HoldfastError):
    """No plug-in of that name is registered."""

    exit_code = 2

    def __init__(self, group: str, name: str, known: Iterable[str]) -> None:
        self.group = group
        self.name = name
        self.known = tuple(sorted(known))
        noun = group.removesuffix("s")
        super().__init__(f"no {noun} of kind '{name}'{did_you_mean(name, self.known)}")


class NotFound(HoldfastError):
    """Nothing of that name or id exists here."""

    def __init__(self, what: str, name: str, known: Iterable[str] = ()) -> None:
        self.what = what
        self.name = name
        super().__init__(f"no {what} '{name}'{did_you_mean(name, tuple(known))}")


class DataError(HoldfastError):
    """Data could not be used."""

    exit_code = 3


class SourceError(DataError):
    """A source could not be read."""


class ExpectationFailed(DataError):
    """A hard expectation did not hold, so no snapshot was made."""


class InvalidInput(HoldfastError):
    """A value does not fit the signature of the version that was asked.

    `row` counts from 0 within the request; `expected` says what would have been accepted.
    """

    exit_code = 4

    def __init__(self, message: str, *, row: int = 0, column: str = "", expected: str = "") -> None:
        self.row = row
        self.column = column
        self.expected = expected
        super().__init__(message)


class ArtifactError(HoldfastError):
    """A model artifact cannot be used."""

    exit_code = 5


class Tampered(ArtifactError):
    """An artifact's bytes are not the bytes that were signed."""


class ParityFailed(ArtifactError):
    """A converted model does not answer what the original answers."""


class GateRefused(HoldfastError):
    """A candidate did not pass its gates."""

    exit_code = 6


class JobFailed(HoldfastError):
    """A job's process failed, was killed, or ran out of memory."""

    exit_code = 7


class StateError(HoldfastError):
    """The state directory or the catalog cannot be used as asked."""

    exit_code = 8


class AlreadyRunning(StateError):
    """Another process holds this state."""


class CorruptSegment(StateError):
    """Recorded bytes fail their checksum in the middle of a segment."""


class OtherFormat(CorruptSegment):
    """A segment is of a format version that this program does not read; nothing of it is damaged.

    Whoever sets a segment aside because it cannot be read sets this one aside too, so it is a kind of those.
    """


class Conflict(StateError):
    """Somebody else changed this in the meantime; read again and retry."""


class Overloaded(HoldfastError):
    """A bounded queue is full; try again after `retry_after_s` seconds."""

    exit_code = 9

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The near miss as a clause, or what is known when nothing is near.

    >>> did_you_mean("qualty", ["quality", "drift"])
    "; did you mean 'quality'?"
    >>> did_you_mean("x", ["quality", "drift"])
    '; known: drift, quality'
    """
    near = get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(sorted(known)[:12])}" if known else ""
