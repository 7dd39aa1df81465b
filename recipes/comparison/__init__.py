"""AdvBN beside its peers: methods, datasets, models and seeds in one table, at equal steps and at equal time."""
