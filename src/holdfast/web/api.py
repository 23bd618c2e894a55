"""The API: what stands on record as JSON, and the two changes that a person may make from afar."""

from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Request, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from holdfast.changes import RolledBack, acknowledge_incident, roll_back
from holdfast.core.clock import Clock
from holdfast.core.records import AuditEntry, Incident, Release, Run, Version
from holdfast.lookups import (
    ModelFound,
    ReleaseFound,
    find_all,
    find_incidents,
    find_model,
    find_one,
    find_release,
    only_system,
)
from holdfast.state import State
from holdfast.views import Status
from holdfast.web.access import PERSON

Asked = Request[Any, Any, Any]


class RollbackAsked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of a rollback. `system` may be left out where there is only one."""

    why: str = "asked for over the API"
    system: str = ""


def api_routes(state: State, clock: Clock, status: Callable[[str], Status]) -> list[Any]:
    """The handlers below ``/api``."""

    @get("/api/status", sync_to_thread=True)
    def get_status(system: FromQuery[str] = "") -> Status:
        return status(system)

    return [get_status, *_record_routes(state), *_change_routes(state, clock)]


def _record_routes(state: State) -> list[Any]:
    @get("/api/incidents", sync_to_thread=True)
    def get_incidents(system: FromQuery[str] = "", closed: FromQuery[bool] = False) -> list[Incident]:
        with state.catalog.read() as tx:
            return find_incidents(tx, system, closed=closed)

    @get("/api/incidents/{id:str}", sync_to_thread=True)
    def get_incident(id: FromPath[str], system: FromQuery[str] = "") -> Incident:
        with state.catalog.read() as tx:
            return find_one(tx, Incident, id, system)

    @get("/api/releases", sync_to_thread=True)
    def get_releases(system: FromQuery[str] = "") -> list[Release]:
        with state.catalog.read() as tx:
            return find_all(tx, Release, system)

    @get("/api/releases/{id:str}", sync_to_thread=True)
    def get_release(id: FromPath[str], system: FromQuery[str] = "") -> ReleaseFound:
        with state.catalog.read() as tx:
            return find_release(state, tx, id, system)

    @get("/api/models", sync_to_thread=True)
    def get_models(system: FromQuery[str] = "") -> list[Version]:
        with state.catalog.read() as tx:
            return find_all(tx, Version, system)

    @get("/api/models/{id:str}", sync_to_thread=True)
    def get_model(id: FromPath[str], system: FromQuery[str] = "") -> ModelFound:
        with state.catalog.read() as tx:
            return find_model(tx, id, system)

    @get("/api/runs", sync_to_thread=True)
    def get_runs(system: FromQuery[str] = "") -> list[Run]:
        with state.catalog.read() as tx:
            return find_all(tx, Run, system)

    @get("/api/runs/{id:str}", sync_to_thread=True)
    def get_run(id: FromPath[str], system: FromQuery[str] = "") -> Run:
        with state.catalog.read() as tx:
            return find_one(tx, Run, id, system)

    @get("/api/audit", sync_to_thread=True)
    def get_audit(system: FromQuery[str] = "", newest: FromQuery[int] = 100) -> list[AuditEntry]:
        with state.catalog.read() as tx:
            return tx.audit_log(system or None, newest=max(1, newest))[::-1]

    return [
        get_incidents,
        get_incident,
        get_releases,
        get_release,
        get_models,
        get_model,
        get_runs,
        get_run,
        get_audit,
    ]


def _change_routes(state: State, clock: Clock) -> list[Any]:
    @post("/api/rollback", sync_to_thread=True, status_code=200)
    def post_rollback(request: Asked, data: JSONBody[RollbackAsked]) -> RolledBack:
        with state.catalog.read() as tx:
            name = only_system(tx, data.system)
        return roll_back(state, name, clock, why=data.why, by=_person(request))

    @post("/api/incidents/{id:str}/acknowledge", sync_to_thread=True, status_code=200)
    def post_acknowledge(request: Asked, id: FromPath[str], system: FromQuery[str] = "") -> Incident:
        return acknowledge_incident(state, clock, id, system, by=_person(request))

    return [post_rollback, post_acknowledge]


def _person(request: Asked) -> str:
    return str(request.scope[PERSON])  # type: ignore[literal-required]
