"""Random changes of training images beyond crop and flip, each from its paper's formulas."""
