"""Properties are checked without a deadline: machines that are busy are slow."""

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
