"""The embedded benchmark: real handwriting, drawn in styles and damaged on purpose, without a download."""
