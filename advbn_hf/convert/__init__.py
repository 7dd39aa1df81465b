"""Checkpoints that people already have, read into Transformers models with both branches.

Each layout is a module with `recognises(state_dict)` and `convert(state_dict)`, which returns the clean model, the
auxiliary model and the `AdvBNConfig`; `LAYOUTS` in load.py names them.
"""

from .load import convert_state_dict, load_checkpoint
from .processors import processor_for

__all__ = ["convert_state_dict", "load_checkpoint", "processor_for"]
