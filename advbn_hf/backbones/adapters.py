"""Adapters within a model, such as PEFT's LoRA, merged into the weights that they adapt.

Adapted layers are recognised by their methods, so that nothing here needs PEFT.
"""

import copy
from typing import Any

from torch import nn


def without_wrapper(model: Any) -> Any:
    """The model inside a wrapper such as `PeftModel`, adapted layers and all; any other model as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def has_adapters(model: nn.Module) -> bool:
    """Whether any layer of a model is adapted."""
    return any(_is_adapted(module) for module in model.modules())


def merged(model: nn.Module) -> nn.Module:
    """A plain copy of an adapted model, with every adapter merged into the weights; the model is unchanged.

    It does what PEFT's `merge_and_unload` does, which only `PeftModel` has. Models adapted by `model.add_adapter(...)`
    lack it, and their own `save_pretrained` writes the adapters alone.

    Args:
        model: a Transformers model, adapted or not.

    Returns:
        A model of the same class.
    """
    model = copy.deepcopy(model)
    done: list[str] = []
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if _is_adapted(module) and not any(path.startswith(f"{outer}.") for outer in done):
            model.set_submodule(path, _plain_layer(module))
            done.append(path)
    for name in ("peft_config", "_hf_peft_config_loaded"):  # Transformers recognises an adapted model by these
        vars(model).pop(name, None)
    return model


def _is_adapted(module: nn.Module) -> bool:
    return hasattr(module, "unload_and_optionally_merge_module") or hasattr(module, "get_base_layer")


def _plain_layer(module: Any) -> nn.Module:
    """The layer that an adapted one becomes."""
    if hasattr(module, "unload_and_optionally_merge_module"):
        return module.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
    module.merge()
    return module.get_base_layer()
