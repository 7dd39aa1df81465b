"""What the method does, in images: a decoder from the stem's features back to images, and what is drawn with it."""
