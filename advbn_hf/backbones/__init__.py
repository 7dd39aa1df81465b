"""Any classifier: loaded, traced, cut in two, its norms doubled."""
