"""Opens a system by its name, as commands and the keeper do: its file, its feeds, and where its notices go."""

import logging
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import httpx

from holdfast.controls import Tell
from holdfast.core.clock import Clock
from holdfast.core.records import SystemFile
from holdfast.state import State, system_file
from holdfast.system import System
from holdfast.world import LakeFeeds

log = logging.getLogger("holdfast")

WEBHOOK = "HOLDFAST_WEBHOOK"
"""Environment variable: notices are also sent to this URL, as JSON."""
WEBHOOK_TIMEOUT_S = 3.0
TOLD, LOGGED = "people were told", "written to the log (no webhook is set)"
"""With a webhook, and without."""


def open_system(state: State, name: str, clock: Clock, *, tell: Tell = log.warning, waits: bool = False) -> System:
    """The system of that name, as its file in force describes it.

    Paths of feeds are relative to the file's directory. Raises NotFound with the near miss.
    """
    with state.catalog.read() as tx:
        file = system_file(tx, name)
    return system_of(state, file, clock, tell=tell, waits=waits)


def system_of(state: State, file: SystemFile, clock: Clock, *, tell: Tell = log.warning, waits: bool = False) -> System:
    """The system that a file describes."""
    spec = state.spec(file)
    feeds = LakeFeeds(spec, Path(file.path).parent, state.lake, state.catalog)
    return System(spec, state, clock, feeds, waits=waits, tell=tell, told=on_record(os.environ))


def teller(system: str, clock: Clock) -> Tell:
    """Where the notices of a system go: the log and, where `HOLDFAST_WEBHOOK` is set, that URL."""
    url = os.environ.get(WEBHOOK, "")

    def tell(text: str) -> None:
        log.warning("%s: %s", system, text)
        if url:
            _post(url, system, text, clock.now())

    return tell


def on_record(environment: Mapping[str, str]) -> str:
    """What stands on record of a notice."""
    return TOLD if environment.get(WEBHOOK) else LOGGED


def _post(url: str, system: str, text: str, at: datetime) -> None:
    """Send one notice. A webhook's URL is a secret, so an error names only its host."""
    try:
        body = {"system": system, "text": f"{system}: {text}", "at": at.isoformat()}
        httpx.post(url, json=body, timeout=WEBHOOK_TIMEOUT_S).raise_for_status()
    except httpx.HTTPStatusError as error:
        log.error("the webhook at %s answered %d", error.request.url.host, error.response.status_code)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        log.error("the webhook in %s cannot be reached: %s", WEBHOOK, type(error).__name__)
