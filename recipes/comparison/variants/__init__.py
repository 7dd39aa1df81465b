"""Ideas beyond the paper, a file an idea: each a subclass of AdvBN that changes one thing."""
