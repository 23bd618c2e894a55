"""How much of requests a worker holds at a time: one bound for all its connections, over HTTP and gRPC.

Outside the bound is what one read of each HTTP connection brings (a quarter of a MiB at most): where it must wait for
earlier answers, it is kept as it came and nothing more is read. So are small requests, which the queue bounds.
"""

LIMIT_BYTES = 256 << 20
"""Most bytes, unless `holdfast up --bodies-mib` says otherwise."""


class Bodies:
    """Counts the bytes of bodies that came in and are not answered yet. Owned by one event loop."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    def hold(self, count: int) -> bool:
        """Hold so many bytes more; False, and nothing is held, where that is too many."""
        if self.held_bytes + count > self.limit_bytes:
            return False
        self.held_bytes += count
        return True

    def release(self, count: int) -> None:
        """Hold so many bytes no more."""
        self.held_bytes -= count


class Held:
    """What is held of one request."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._bytes = 0

    def add(self, count: int) -> bool:
        """Hold so many bytes more; False where that is too many."""
        if not self._bodies.hold(count):
            return False
        self._bytes += count
        return True

    def release(self) -> None:
        """Hold nothing of it any more."""
        self._bodies.release(self._bytes)
        self._bytes = 0
