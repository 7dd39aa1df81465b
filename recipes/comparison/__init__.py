"""AdvBN beside its peers: methods, data sets, models and seeds in one table, at equal steps and at equal time."""
