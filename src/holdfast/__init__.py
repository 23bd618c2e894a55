"""Holdfast runs machine-learning systems in production and holds them to what was promised."""

__version__ = "0.1.0"
