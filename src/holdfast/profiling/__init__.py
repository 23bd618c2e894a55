"""Profiles: where the time of a system's requests goes, measured, and what to change."""
