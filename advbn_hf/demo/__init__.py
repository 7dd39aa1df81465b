"""A demo in the browser: an image, a shift of it, and what several models answer; needs the extra "demo"."""
