"""Seeing what the method does: a decoder from the stem's features back to pictures, and what is drawn with it."""
