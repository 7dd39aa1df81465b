"""AdvBN beside its peers: methods, datasets, models and seeds in one table, at equal steps and at equal time.

`methods` names what is compared: `controls`, `peers/`, AdvBN's own settings and `variants/`. `datasets` and `models`
say on what. `grid` makes the trials, each by `fine_tuning` and timed by `costs`, and keeps them in a `store`;
`summary`, `questions`, `sensitivity`, `plots` and `report` are about them.
"""
