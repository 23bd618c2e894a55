"""The demonstration: Holdfast on a year of real flights."""
