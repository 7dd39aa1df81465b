"""Shifts that are generated, and shifts that were released."""
