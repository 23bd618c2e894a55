"""``holdfast why`` and ``holdfast replay``: one recorded answer, explained and computed again."""

from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from holdfast.cli.arguments import STATE, AsJson, StateDirectory, SystemName
from holdfast.cli.opened import opened
from holdfast.cli.output import say, say_json, say_table, when
from holdfast.core.answerer import ELSEWHERE
from holdfast.core.meaning import many
from holdfast.core.protocols import Transaction
from holdfast.errors import HoldfastError, NotFound
from holdfast.flow import lineage
from holdfast.flow.lineage import Explanation, Replay
from holdfast.lookups import system_names
from holdfast.state import State, system_file

Id = Annotated[str, typer.Argument(metavar="ID", help="A prediction's id, or a request's.")]
T = TypeVar("T")
ADVICE = "`holdfast why` takes a prediction_id from an answer"


def why(id: Id, state: StateDirectory = STATE, system: SystemName = "", as_json: AsJson = False) -> None:
    """Explain one recorded answer: version, release, run, data, what moved it, and the label if it came."""
    with opened(state) as here:
        found = _in_any(here, system, id, lambda tx, name: _why(here, tx, name, id))
    say_json(found) if as_json else _explain(found)


def replay(id: Id, state: StateDirectory = STATE, system: SystemName = "", as_json: AsJson = False) -> None:
    """Compute a recorded answer again with the version that gave it; ends with 1 where the two do not agree."""
    with opened(state) as here:
        found = _in_any(here, system, id, lambda tx, name: lineage.replay(tx, here.lake, name, id, here.model))
    say_json(found) if as_json else _compare(found)
    if not found.agrees:
        raise HoldfastError(
            f"{found.prediction_id} was answered {found.recorded} and is now {found.replayed}, {found.difference:.2g} "
            "apart: the code or a library that runs the model has changed since"
        )


def _why(here: State, tx: Transaction, system: str, id: str) -> Explanation:
    timezone = here.spec(system_file(tx, system)).data.timezone
    return lineage.why(tx, here.lake, system, id, here.model, timezone=timezone)


def _in_any(here: State, system: str, id: str, ask: Callable[[Transaction, str], T]) -> T:
    """The answer of the first system that knows the prediction. Raises NotFound for what stands behind it, and
    HoldfastError where no system knows it, with the near miss and why there may be none."""
    missing: NotFound | None = None
    with here.catalog.read() as tx:
        names = system_names(tx, system)
        for name in names:
            try:
                return ask(tx, name)
            except NotFound as error:
                if error.what != "prediction":
                    raise
                missing = missing if missing and "did you mean" in str(missing) else error
        silent = [name for name in names if here.spec(system_file(tx, name)).serve.record == "none"]
    if len(names) == 1 and silent:
        why_none = "this system records nothing (serve.record: none)"
    else:
        why_none = "; ".join(f"system '{name}' records nothing (serve.record: none)" for name in silent)
    raise HoldfastError("; ".join(filter(None, (str(missing or NotFound("prediction", id)), ADVICE, why_none))))


MOST_CLASSES = 5
"""So many of the classes are shown, the likeliest first."""


def _explain(found: Explanation) -> None:
    known_at = f", known at {when(found.label_known_at)}" if found.label is not None else ""
    label = _label(found.label) if found.label is None else found.label_class or _label(found.label)
    answered = f"{found.answered} at {found.output:.6f}" if found.answered else f"{found.output:.6f}"
    say(f"{found.prediction_id}: {answered} for key {found.key or '-'}; label {label}{known_at}")
    if found.probabilities:
        most = sorted(found.probabilities.items(), key=lambda each: -each[1])[:MOST_CLASSES]
        say(f"likeliest: {', '.join(f'{name} {share:.4f}' for name, share in most)}")
    inputs = f"inputs known {when(found.features_known_at)}, event {when(found.event_at)}"
    if found.stage == ELSEWHERE:
        _tell(found)
        return
    say(f"answered {when(found.predicted_at)} with {inputs}")
    release = f" of {found.release}" if found.release else ""
    say(f"by version {found.version} of '{found.system}', {found.stage}{release}")
    say(f"from {found.run}: {found.trainer}, trained on rows until {when(found.trained_until)}")
    files = ", ".join(f"{file.name} ({many(file.rows, 'row')})" for file in found.files)
    say(f"snapshot {found.snapshot} of {files}")
    if found.outside:
        say(f"{found.outside} of its inputs lie outside what training saw{_blanked(found)}")
    if found.incidents:
        say(f"incidents then, open or found later: {', '.join(found.incidents)}")
    say()
    rows = [
        (
            each.column,
            shown(each.value),
            changed(each.change),
            "outside what training saw" if each.is_outside else "",
        )
        for each in found.influences
    ]
    say_table(("input", "value", "without it the answer changes by", ""), rows)


def _tell(found: Explanation) -> None:
    """What is known of an answer that was given elsewhere, and what is not."""
    say(f"answered {when(found.predicted_at)} elsewhere, by version {found.version}; Holdfast was told of it")
    say("Holdfast does not have that model: it cannot say what moved the answer, nor from what data it was made")
    if found.incidents:
        say(f"incidents then, open or found later: {', '.join(found.incidents)}")
    say()
    say_table(("input", "value"), [(each.column, shown(each.value)) for each in found.influences])


def _blanked(found: Explanation) -> str:
    """How many of the inputs outside cannot be marked, as a clause: what they held was taken as missing."""
    count = found.outside - sum(each.is_outside for each in found.influences)
    return f"; {count} of them taken as missing" if count > 0 else ""


def shown(value: object) -> str:
    """A value of an input: a dash for a missing one, a whole number without decimals.

    >>> shown(3.0), shown(0.25), shown("UA"), shown(None)
    ('3', '0.25', 'UA', '-')
    """
    if value is None:
        return "-"
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else str(value)


def changed(change: float | None) -> str:
    """An influence in a few digits: 0 only where there is none, a dash where it cannot be told."""
    if change is None:
        return "-"
    if not change:
        return "0"
    return f"{change:+.4f}" if abs(change) >= 0.0001 else f"{change:+.1e}"


def _compare(found: Replay) -> None:
    word = "agree" if found.agrees else "do not agree"
    say(f"{found.prediction_id} by version {found.version}")
    say(f"recorded {found.recorded:.9f}, replayed {found.replayed:.9f}")
    say(f"they {word}: {found.difference:.2g} apart")


def _label(label: float | None) -> str:
    return "has not come" if label is None else f"{label:g}"
