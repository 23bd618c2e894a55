"""The library door: Holdfast's statistics on tables in memory, without a system."""
