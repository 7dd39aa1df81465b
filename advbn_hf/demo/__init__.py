"""A demo in the browser: an image, a shift of it, and what several models predict; needs the extra "demo"."""
