"""How much of the history a model is fitted on, and on what evidence that was chosen."""

from datetime import datetime, timedelta

import msgspec


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """What is fitted: ``all``, the newest ``90d``, everything weighted by age ``half-life 90d``, or ``auto``.

    At most one field is set; none means everything, all rows alike.
    """

    recent: timedelta | None = None
    """Only rows at most this old are fitted."""
    half_life: timedelta | None = None
    """A row this much older than the newest counts half as much."""
    auto: bool = False
    """Chosen at each training, on days before the hold-out."""


ALL = Span()
AUTO = Span(auto=True)


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """One window that was tried and how it did on the scored days."""

    window: str
    """As the system file writes it."""
    loss: float
    """Mean loss of its models."""
    gain: float = 0.0
    """How much lower that is than with the window in use."""
    low: float | None = None
    """Lower bound of the gain, by block bootstrap; None for the window in use, and where it has no bound."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The window that a model was fitted on and the evidence for it; none where the file states the window."""

    window: str
    why: str
    loss: str = ""
    """The loss that was compared."""
    confidence: float | None = None
    """Of each lower bound: all of them together hold with that of `release.decide`."""
    since: datetime | None = None
    until: datetime | None = None
    """The days that were scored."""
    blocks: int = 0
    rows: int = 0
    fits: int = 0
    contenders: tuple[Contender, ...] = ()
