"""``holdfast status``: how everything stands."""

from holdfast.cli.arguments import STATE, AsJson, StateDirectory, SystemName
from holdfast.cli.opened import opened
from holdfast.cli.output import plot, say, say_json, say_table, when
from holdfast.core.clock import SystemClock
from holdfast.core.meaning import many, reason
from holdfast.flow.budget import HEADS, alarms, table
from holdfast.views import FeedView, ProcessView, Status, SystemView, Views

FEW = 100
"""A day's loss on fewer labelled rows is said with how many they are."""


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
    say_table(("process", "", "last sign", "routes", "answers and labels recorded", ""), rows)


def _unrecorded(process: ProcessView) -> str:
    if not process.lost and not process.shed:
        return ""
    return f"not recorded: {many(process.lost, 'row')} refused, {process.shed:,} shed"


def _system(view: SystemView) -> None:
    live = f"version {view.live} live since {when(view.live_since)}" if view.live else "no version live"
    if view.elsewhere:
        known = f"version {view.live} answers elsewhere since {when(view.live_since)}"
        live = known if view.live else "served elsewhere; no complete day of answers was told yet"
    canary = f", version {view.canary} answers {view.canary_share:.0%}" if view.canary else ""
    say(f"{view.system}: {live}{canary}")
    if not view.is_recorded:
        say("  nothing is recorded (serve.record: none)")
    if view.reference:
        say(f"  {view.reference}")
    if view.unpaired:
        say(f"  {many(view.unpaired, 'row')} of requests or responses without the other half")
    if view.working_on:
        say(f"  training: {view.working_on}")
    if view.last_failure:
        say(f"  the newest training failed: {view.last_failure}")
    if view.error:
        say(f"  the keeper could not do its work: {view.error}")
    if view.release:
        release = view.release.release
        say(f"  {release.id} in {release.state}: {view.release.evidence or release.why}")
    labelled = [day for day in view.days if day.loss is not None]
    losses = [day.loss for day in labelled if day.loss is not None]
    if losses:
        few = f" on {many(labelled[-1].labelled, 'row')}" if labelled[-1].labelled < FEW else ""
        promised = f", promised at most {view.promised:.4f}" if view.promised is not None else ""
        say(f"  {view.loss} per day  {plot(losses)}  newest {losses[-1]:.4f}{few}{promised}")
    if view.days:
        answered, days = sum(day.rows for day in view.days), len(view.days)
        on = "the one day" if days == 1 else f"the newest {days} days"
        say(f"  {many(answered, 'row')} answered on {on} with answers")
    if not view.incidents:
        say("  no open incident")
    for incident in view.incidents:
        since = f"{incident.state} since {when(incident.opened_at)}"
        say(f"  {incident.id} {since}: {incident.cause}: {reason(incident.last)}")
    if view.monitors:
        rows = [
            (m.name, m.grade or "not run yet", "late" if m.is_late else "", when(m.last_at), m.why)
            for m in view.monitors
        ]
        say_table(("  monitor", "verdict", "", "last run", "why"), [("  " + row[0], *row[1:]) for row in rows])
    shares = [m.share for m in view.monitors if m.share is not None]
    if any(share.level is not None for share in shares):
        used = sum(share.a_month for share in shares)
        say(f"  of {alarms(view.false_alarms)} a month the monitors may spend {used:.2g}:")
        say_table(HEADS, table(shares))
    freshness = {True: "stale", False: "fresh", None: ""}
    feeds = [
        (
            f"  {f.name}",
            "-" if f.rows is None else f"{f.rows:,}",
            "-" if f.over_http else f"{f.quarantined:,}",
            when(f.newest),
            ", ".join(filter(None, (_over_http(f, view), freshness[f.is_stale]))),
        )
        for f in view.feeds
    ]
    say_table(("  feed", "rows", "quarantined", "newest", ""), feeds)


def _over_http(feed: FeedView, view: SystemView) -> str:
    """How a feed without files is filled, and of which days its rows are; empty for one with files."""
    if not feed.over_http:
        return ""
    return "over HTTP" if feed.rows is None else f"over HTTP, on {many(len(view.days), 'day')}"
