"""Seeing what the method does: a decoder from the stem's features back to images, and what is drawn with it."""
