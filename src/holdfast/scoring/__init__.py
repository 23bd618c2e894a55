"""Answers that nobody waits for: whole files, and messages of a topic."""
