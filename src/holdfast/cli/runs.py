"""``holdfast runs``: trainings, what went in and what came out."""

from typing import Annotated

import typer

from holdfast.cli.arguments import STATE, AsJson, StateDirectory, SystemName
from holdfast.cli.opened import opened
from holdfast.cli.output import headline, plot, say, say_json, say_table, when
from holdfast.core.meaning import many
from holdfast.core.records import Run
from holdfast.lookups import find_all, find_one, only_watched

Id = Annotated[str, typer.Argument(metavar="[ID]", help="One run; none lists them.")]


def runs(id: Id = "", state: StateDirectory = STATE, system: SystemName = "", as_json: AsJson = False) -> None:
    """List trainings, newest first, or show one: parameters, folds, baselines, loss curves, cost, environment."""
    with opened(state) as here, here.catalog.read() as tx:
        if id:
            one = find_one(tx, Run, id, system)
            say_json(one) if as_json else _show(one)
            return
        found = find_all(tx, Run, system)
        watched = "" if found else only_watched(here, tx, system)
    if as_json:
        say_json(found)
        return
    if not found:
        say(f"no runs; {watched or '`holdfast train FILE` makes one'}")
        return
    rows = [
        (r.system, r.id, r.state, r.trainer, when(r.started_at), f"{r.took_s:.1f} s", headline(r.metrics) or r.message)
        for r in found
    ]
    say_table(("system", "run", "state", "trainer", "started", "took", "on the hold-out"), rows)


def _show(one: Run) -> None:
    say(f"{one.system} {one.id}: {one.state}, trainer {one.trainer}, seed {one.seed}, snapshot {one.snapshot}")
    if one.message:
        say(one.message)
    say(f"started {when(one.started_at)}, took {one.took_s:.1f} s, {one.cpu_s:.1f} s of CPU ({one.cost:.4f} CPU hours)")
    say(f"code {one.commit}; " + ", ".join(f"{name} {version}" for name, version in one.environment.items()))
    say("parameters: " + ", ".join(f"{name}={value}" for name, value in one.params.items()))
    names = list(one.metrics)
    rows: list[tuple[str, dict[str, float]]] = [("hold-out", one.metrics)]
    rows += [(baseline.name, baseline.metrics) for baseline in one.baselines]
    rows += [(f"fold {number}", metrics) for number, metrics in enumerate(one.folds, 1)]
    say()
    say_table(("", *names), [(name, *(f"{m[n]:.4f}" if n in m else "-" for n in names)) for name, m in rows])
    for name, values in one.curves.items():
        if values:
            say(f"{name:<5} loss {values[0]:.4f} {plot(values)} {values[-1]:.4f} over {many(len(values), 'round')}")
    if one.window is not None:
        say(f"window {one.window.window}: {one.window.why}")
        if one.window.contenders:
            tried = [
                (each.window, f"{each.loss:.4f}", f"{each.gain:+.4f}", "-" if each.low is None else f"{each.low:+.4f}")
                for each in one.window.contenders
            ]
            say_table(("window", one.window.loss, "gain", "at least"), tried)
    if one.artifact:
        say(f"artifact {one.artifact}, runtime {one.runtime}; {one.parity}")
