"""Names of requests: which ones a caller may bring, and new ones for those who bring none."""

from collections.abc import Callable

from holdfast.core.clock import Clock

ID_LIMIT = 200
"""Most characters of a request id."""

_DRAWN = 512
"""So many are drawn at a time: one by one would cost more than the rest of an id."""


def usable_id(request_id: str) -> bool:
    """True for an id that a request may bring: short and printable."""
    return len(request_id) <= ID_LIMIT and request_id.isprintable()


def request_ids(clock: Clock, random_bytes: Callable[[int], bytes]) -> Callable[[], str]:
    """Makes ids of one process: 12 digits of when it began, a count, and 16 digits by chance, all hexadecimal.

    They sort by the time they were made within a process. Nobody can guess the next one: of an id that comes again the
    first record stays, so whoever could bring it first would take the place of another's record.
    """
    began_ms = int(clock.now().timestamp() * 1000)
    prefix = f"{began_ms:012x}-"
    count = 0
    drawn: list[str] = []

    def new_id() -> str:
        nonlocal count
        if not drawn:
            digits = random_bytes(_DRAWN * 8).hex()
            drawn.extend(digits[at : at + 16] for at in range(0, len(digits), 16))
        count += 1
        return f"{prefix}{count:08x}-{drawn.pop()}"

    return new_id
