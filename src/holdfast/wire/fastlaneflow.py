"""What uvicorn reads from and writes to where there is a fast lane: when reading goes on, and how a connection ends."""

from collections import deque
from typing import Any, Protocol

from uvicorn.protocols.http.flow_control import FlowControl


class Flow(FlowControl):
    """Reads on only where answers are taken, and nothing that came in is waiting."""

    def __init__(self, transport: Any, pipeline: deque[Any]) -> None:
        super().__init__(transport)
        self._pipeline = pipeline
        self.is_holding = False

    def resume_reading(self) -> None:
        """Read on, where there is room for more."""
        if not (self.write_paused or self.is_holding or self._pipeline or self._transport.is_closing()):
            super().resume_reading()


class Lane(Protocol):
    """A connection, as what is written to sees it."""

    transport: Any

    def is_coming_in(self) -> bool:
        """True while the body of the request that is being answered is."""

    def ignore(self) -> None:
        """Say that nothing more is answered, and let what still comes in go by."""


class Outlet:
    """What an answer through ASGI is written to. A client that is still sending is not cut off by its end.

    To close a connection on which something lies unread resets it, and the client may never see the answer.
    """

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self.write = lane.transport.write
        self.is_closing = lane.transport.is_closing

    def close(self) -> None:
        """Close, or only for writing while a body is coming in."""
        if self._lane.is_coming_in():
            self._lane.ignore()
        else:
            self._lane.transport.close()
