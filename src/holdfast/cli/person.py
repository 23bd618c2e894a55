"""Who gives a command."""

import getpass


def person() -> str:
    """Who gives the command, for the audit log."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as containers have
        return "somebody at the command line"
