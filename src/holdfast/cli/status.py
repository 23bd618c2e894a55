"""``holdfast status``: how everything stands."""

from holdfast.cli.arguments import STATE, AsJson, StateDirectory, SystemName
from holdfast.cli.opened import opened
from holdfast.cli.output import plot, say, say_json, say_table, when
from holdfast.core.clock import SystemClock
from holdfast.views import ProcessView, Status, SystemView, Views


def status(state: StateDirectory = STATE, system: SystemName = "", as_json: AsJson = False) -> None:
    """Say what is live, what is on its way, what is wrong, what was watched, and who is serving."""
    with opened(state) as here:
        found = Views(here, SystemClock()).status(system)
    if as_json:
        say_json(found)
        return
    _processes(found)
    if not found.systems:
        say("no system yet; put one in force with `holdfast up FILE`")
    for view in found.systems:
        say()
        _system(view)


def _processes(found: Status) -> None:
    if not found.is_up:
        say(f"{found.state}: nothing is up; `holdfast up` serves what is live")
        return
    grpc = f", gRPC at {found.grpc}" if found.grpc else ""
    say(f"{found.state}: serving at {found.url}{grpc}, console at {found.console}, routes {found.generation}")
    rows = [
        (
            process.name,
            "alive" if process.is_alive else "silent",
            "-" if process.age_s is None else f"{process.age_s:.1f} s ago",
            process.generation or "",
            f"{process.recorded:,}" if process.generation else "",
            "; ".join(filter(None, (_unrecorded(process), process.error))),
        )
        for process in found.processes
    ]
    say_table(("process", "", "last sign", "routes", "rows recorded", ""), rows)


def _unrecorded(process: ProcessView) -> str:
    if not process.lost and not process.shed:
        return ""
    return f"not recorded: {process.lost:,} rows refused, {process.shed:,} shed"


def _system(view: SystemView) -> None:
    live = f"version {view.live} live since {when(view.live_since)}" if view.live else "no version live"
    canary = f", version {view.canary} answers {view.canary_share:.0%}" if view.canary else ""
    say(f"{view.system}: {live}{canary}")
    if not view.is_recorded:
        say("  nothing is recorded (serve.record: none)")
    if view.working_on:
        say(f"  training: {view.working_on}")
    if view.last_failure:
        say(f"  the newest training failed: {view.last_failure}")
    if view.error:
        say(f"  the keeper could not do its work: {view.error}")
    if view.release:
        release = view.release.release
        say(f"  {release.id} in {release.state}: {view.release.evidence or release.why}")
    losses = [day.loss for day in view.days if day.loss is not None]
    if losses:
        promised = f", promised at most {view.promised:.4f}" if view.promised is not None else ""
        say(f"  {view.loss} per day  {plot(losses)}  newest {losses[-1]:.4f}{promised}")
    if view.days:
        say(f"  {sum(day.rows for day in view.days):,} rows answered on the newest {len(view.days)} days with answers")
    if not view.incidents:
        say("  no open incident")
    for incident in view.incidents:
        say(f"  {incident.id} {incident.state} since {when(incident.opened_at)}: {incident.cause}: {incident.last.why}")
    if view.monitors:
        rows = [
            (m.name, m.grade or "not run yet", "late" if m.is_late else "", when(m.last_at), m.why)
            for m in view.monitors
        ]
        say_table(("  monitor", "verdict", "", "last run", "why"), [("  " + row[0], *row[1:]) for row in rows])
    freshness = {True: "stale", False: "fresh", None: ""}
    feeds = [
        (f"  {f.name}", f"{f.rows:,}", f"{f.quarantined:,}", when(f.newest), freshness[f.is_stale]) for f in view.feeds
    ]
    say_table(("  feed", "rows", "quarantined", "newest", ""), feeds)
