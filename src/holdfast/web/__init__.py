"""Door two: the console, a status page, and an HTTP API for people and scripts."""
