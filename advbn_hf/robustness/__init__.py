"""Measuring robustness: shifts, evaluation, results, tables and plots."""
