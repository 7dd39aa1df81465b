"""The paper, on tensors: statistics, perturbation, ascent and losses."""
