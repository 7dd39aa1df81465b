"""Images of the same things as several designers drew them, made from the designers' icon packages."""
