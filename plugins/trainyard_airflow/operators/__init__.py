"""Operators. Import each from its own module: nothing heavy is loaded with the package."""
