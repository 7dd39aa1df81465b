"""Rows in, tensors out: datasets by Hub id, folder or "embedded", and transforms."""
