"""The catalog's schema, step by step. A new step is a file in `versions/` and its name at the end of `REVISIONS`."""

REVISIONS = ("0001",)
"""Every revision this version of Holdfast can work with, oldest first; the last is the one it works on."""
