"""The methods of others that AdvBN is compared with, a file a method.

To add one, write `peers/NAME.py` with a subclass of `AdvBNForImageClassification` whose `training_output` returns the
paper's loss and, if the method has settings of its own, a subclass of `AdvBNConfig` that checks them. (A method that
changes the images instead is a function of an image and a random generator, which `comparison/views.py` calls.) Then
name it in `METHODS` of `comparison/methods.py`, as a `Method("peer", ...)`: from there
`compare.py --methods plain NAME advbn` trains, times, tabulates and plots it, and
`tests/recipes/test_comparison_methods.py` trains it on every kind of network. Add a test to `test_comparison_peers.py`
beside it that computes the paper's formula independently.
"""
