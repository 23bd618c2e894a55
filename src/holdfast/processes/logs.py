"""How the processes of a running state log: one line each, to standard error."""

import logging


def log_to_stderr() -> None:
    """Send this process's log to standard error; of libraries only warnings."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)-7s [%(process)d] %(message)s")
    logging.getLogger("holdfast").setLevel(logging.INFO)
