"""Names below a state directory, known to processes that open nothing of it."""

CATALOG = "catalog.db"
"""What was decided."""
ROUTES = "routes.json"
"""The file that workers follow."""
RUN = "run"
"""Where running processes leave their signs of life."""
