"""Backtests: history through the real loop, on a replayed clock."""
