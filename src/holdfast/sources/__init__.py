"""Sources: each reads rows from one kind of place."""

KINDS = {"files": "holdfast.sources.files:Files", "sql": "holdfast.sources.sql:Sql"}
