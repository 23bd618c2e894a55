"""Which code this is: the version, and the commit of the working tree where there is one."""

import subprocess
from functools import cache
from pathlib import Path

from holdfast import __version__


@cache
def code_version() -> str:
    """``0.1.0`` or ``0.1.0+abc1234`` when Holdfast runs from a checkout; ``.dirty`` marks uncommitted changes."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return __version__
    try:
        commit = _git(root, "rev-parse", "--short", "HEAD")
        dirty = ".dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else ""
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}+{commit}{dirty}"


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(  # noqa: S603
        ["git", "-C", str(root), *words],  # noqa: S607
        capture_output=True,
        text=True,
        timeout=5,
        check=True,
    )
    return done.stdout.strip()
