"""A demo in the browser: a picture, a shift of it, and what several models answer; needs the extra "demo"."""
