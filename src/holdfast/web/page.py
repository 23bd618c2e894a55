"""The status page: one page, made on the server, without scripts or anything from elsewhere."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from html import escape
from importlib.resources import files
from typing import Any

from litestar import MediaType, Response, get

from holdfast.core.meaning import judged_by, many, parts, standing
from holdfast.core.records import Explanation, Incident, Release
from holdfast.lookups import find_all
from holdfast.state import State
from holdfast.views import FeedView, Status, SystemView
from holdfast.web.chart import loss_chart

RELEASES = 6
"""How many of the newest releases are shown."""
REFRESH_S = 15
STYLE = files("holdfast.web").joinpath("style.css").read_text(encoding="utf-8")
GOOD = {"pass": "good", "not applicable": "none", "warn": "warn", "fail": "bad", "unknown": "warn"}
STAGES = {"live": "good", "canary": "warn", "shadow": "warn", "gated": "warn", "candidate": "warn"}


def page_routes(state: State, status: Callable[[str], Status]) -> list[Any]:
    """The handlers of the page and its style."""

    @get("/", sync_to_thread=True, media_type=MediaType.HTML)
    def page() -> str:
        with state.catalog.read() as tx:
            releases = find_all(tx, Release)
        return status_page(status(""), releases)

    @get("/style.css", sync_to_thread=False)
    def style() -> Response[str]:
        return Response(STYLE, media_type="text/css; charset=utf-8")

    return [page, style]


def status_page(status: Status, releases: Sequence[Release]) -> str:
    """The whole page."""
    systems = "".join(_system(view, status.at, releases) for view in status.systems)
    nothing = '<p class="quiet">No system yet. Bring one up with <code>holdfast up FILE</code>.</p>'
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="refresh" content="{REFRESH_S}">'
        '<title>Holdfast</title><link rel="stylesheet" href="/style.css"></head><body>'
        f'<header><h1>Holdfast</h1><p class="quiet">{_head(status)}</p></header>'
        f"<main>{systems or nothing}{_processes(status)}</main></body></html>"
    )


def _head(status: Status) -> str:
    where = f"serving at <code>{escape(status.url)}</code> &middot; " if status.url else ""
    return f"{where}routes {status.generation} &middot; {status.at:%d %b %Y, %H:%M:%S} UTC"


def _system(view: SystemView, now: datetime, releases: Sequence[Release]) -> str:
    mine = [release for release in releases if release.system == view.system][:RELEASES]
    chart = (
        f'<section class="wide"><h3>{escape(view.loss)} per day{_promised(view)}</h3>'
        f"{loss_chart(view.days, view.promised, view.loss)}</section>"
    )
    return (
        f'<article><div class="top"><h2>{escape(view.system)}</h2>{_verdict(view)}</div>'
        f'<p class="quiet">{escape(view.about)}</p>{_trouble(view)}{_facts(view, now)}'
        f'<div class="parts">{chart}{_incidents(view.incidents, now)}{_releases(view, mine, now)}'
        f"{_monitors(view, now)}{_feeds(view, now)}</div></article>"
    )


def _verdict(view: SystemView) -> str:
    if not view.live and view.elsewhere:
        return _tag("warn", "no answers told yet")
    if not view.live:
        return _tag("warn", "training" if view.working_on else "no version live")
    if view.incidents:
        count = len(view.incidents)
        return _tag("bad", f"{many(count, 'open incident')}")
    if view.error:
        return _tag("warn", "needs a look")
    unknown = _not_known(view)
    return _tag("warn", f"no open incident; {unknown}") if unknown else _tag("good", "all is well")


def _not_known(view: SystemView) -> str:
    """Why nobody can say yet that all is well; empty where one can."""
    stale = sum(feed.is_stale is True for feed in view.feeds)
    waiting = sum(monitor.last_at is None for monitor in view.monitors)
    late = sum(monitor.is_late for monitor in view.monitors)
    silent = sum(monitor.grade == "unknown" for monitor in view.monitors)
    said = [
        f"{many(stale, 'feed')} stale" if stale else "",
        f"{waiting} of {many(len(view.monitors), 'monitor')} not run yet" if waiting else "",
        f"{many(late, 'monitor')} late" if late else "",
        f"{many(silent, 'monitor')} could not tell" if silent else "",
    ]
    return ", ".join(filter(None, said))


def _trouble(view: SystemView) -> str:
    said = [*filter(None, [view.error, view.reference])]
    if view.last_failure:
        said.append(f"The newest training failed: {view.last_failure}")
    return "".join(f'<p class="trouble">{escape(each)}</p>' for each in said)


def _facts(view: SystemView, now: datetime) -> str:
    facts = [
        (
            "version, served elsewhere" if view.elsewhere else "live version",
            f"{escape(view.live)} <small>{_ago(view.live_since, now)}</small>" if view.live else "none",
        )
    ]
    if view.canary:
        facts.append(("canary", f"{escape(view.canary)} <small>answers {view.canary_share:.0%}</small>"))
    if view.release:
        release = view.release.release
        facts.append(("open release", f"{escape(release.id)} <small>{escape(release.state)}</small>"))
    if view.working_on:
        facts.append(("training", escape(view.working_on)))
    if view.unpaired:
        facts.append(("rows without the other half", f"{view.unpaired:,}"))
    facts.append((f"answered on {many(len(view.days), 'day')}", f"{sum(day.rows for day in view.days):,}"))
    return "<dl>" + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts) + "</dl>"


def _promised(view: SystemView) -> str:
    return "" if view.promised is None else f" <small>promised: at most {view.promised:.4f}, dashed</small>"


def _incidents(incidents: Sequence[Incident], now: datetime) -> str:
    if not incidents:
        return _part("Incidents", '<p class="quiet">None open.</p>')
    return _part("Incidents", "<ul>" + "".join(_incident(each, now) for each in incidents) + "</ul>", wide=True)


def _incident(incident: Incident, now: datetime) -> str:
    done = "".join(f"<li>{escape(move.to)}: {escape(move.why)}</li>" for move in incident.actions[-3:])
    judged = "" if incident.calibrated else f" &middot; {judged_by(incident)}"
    state = _tag("bad" if incident.state == "open" else "warn", incident.state)
    return (
        f"<li>{state} <b>{escape(incident.id)}</b> {escape(incident.cause)} "
        f"<small>opened {_ago(incident.opened_at, now)}, seen {incident.seen}&times;{judged}</small>"
        f"<p>{escape(standing(incident))}</p>{_meaning(incident.explained)}"
        f"{f'<ul class=quiet>{done}</ul>' if done else ''}</li>"
    )


def _meaning(explained: Explanation | None) -> str:
    """When it began, what it costs, where and what changed then, a heading a row."""
    if explained is None:
        return ""
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{'<br>'.join(escape(line) for line in lines)}</dd></div>"
        for name, lines in parts(explained)
    )
    return f'<dl class="meaning">{rows}</dl>' if rows else ""


def _releases(view: SystemView, releases: Sequence[Release], now: datetime) -> str:
    if not releases:
        return _part("Releases", '<p class="quiet">None yet.</p>')
    rows = []
    for release in releases:
        is_open = view.release is not None and view.release.release.id == release.id
        evidence = view.release.evidence if is_open and view.release else ""
        version = f" version {escape(release.version)}" if release.version else ""
        stage = _tag(STAGES.get(release.state, "none"), release.state.replace("_", " "))
        rows.append(
            f"<li>{stage} <b>{escape(release.id)}</b>{version} "
            f"<small>{_ago(release.at, now)}, {escape(release.cause)}</small>"
            f"<p>{escape(evidence or release.why)}</p></li>"
        )
    return _part("Releases", f"<ul>{''.join(rows)}</ul>", wide=True)


def _monitors(view: SystemView, now: datetime) -> str:
    rows = [
        (
            _dot(GOOD.get(monitor.grade, "none"), monitor.grade or "not run yet"),
            f"<b>{escape(monitor.name)}</b><br><small>{escape(monitor.why) or 'not run yet'}</small>",
            _tag("warn", "late") if monitor.is_late else _ago(monitor.last_at, now),
        )
        for monitor in view.monitors
    ]
    return _part("Monitors", _table(rows) if rows else '<p class="quiet">None in the system file.</p>')


def _feeds(view: SystemView, now: datetime) -> str:
    grades = {True: ("bad", "stale"), False: ("good", "fresh"), None: ("none", "no freshness is stated")}
    rows = [
        (
            _dot(*grades[feed.is_stale]),
            f"<b>{escape(feed.name)}</b><br><small>{_brought(feed, view)}</small>",
            _ago(feed.newest, now) if feed.newest else "",
        )
        for feed in view.feeds
    ]
    return _part("Feeds", _table(rows))


def _brought(feed: FeedView, view: SystemView) -> str:
    """How many rows a feed has brought, and how."""
    if feed.rows is None:
        return "over HTTP"
    if feed.over_http:
        return f"{many(feed.rows, 'row')} over HTTP on {many(len(view.days), 'day')}"
    return f"{many(feed.rows, 'row')}, {feed.quarantined:,} in quarantine"


def _processes(status: Status) -> str:
    if not status.is_up:
        return ""
    rows = []
    for each in status.processes:
        said = each.error or f"routes {each.generation}, {each.recorded:,} answers and labels recorded" * (
            each.name != "keeper"
        )
        alive = _dot("good", "alive") if each.is_alive else _dot("bad", "silent")
        age = "" if each.age_s is None else f"{each.age_s:.1f} s"
        rows.append((alive, f"<b>{escape(each.name)}</b><br><small>{escape(said)}</small>", age))
    return f"<article><h2>Processes</h2>{_table(rows)}</article>"


def _part(title: str, body: str, *, wide: bool = False) -> str:
    return f"<section{' class=wide' if wide else ''}><h3>{title}</h3>{body}</section>"


def _table(rows: Iterable[Sequence[str]]) -> str:
    return (
        "<table>" + "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows) + "</table>"
    )


def _tag(grade: str, text: str) -> str:
    return f'<span class="tag {grade}">{escape(text)}</span>'


def _dot(grade: str, text: str) -> str:
    return f'<span class="dot {grade}" title="{escape(text)}"><span>{escape(text)}</span></span>'


def _ago(at: datetime | None, now: datetime) -> str:
    """How long ago, in its largest unit; the time itself on hover."""
    if at is None:
        return "never"
    seconds = max(0.0, (now - at).total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            said = f"{seconds // length:.0f} {unit} ago"
            return f'<time datetime="{at.isoformat()}" title="{at:%d %b %Y %H:%M} UTC">{said}</time>'
    return f'<time datetime="{at.isoformat()}">{seconds:.0f} s ago</time>'
