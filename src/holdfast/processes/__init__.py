"""The processes of a running state: the supervisor (`up`), its workers and its keeper."""
