"""From a model and a suite to records."""
