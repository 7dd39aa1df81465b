"""Data that only the comparison uses."""
