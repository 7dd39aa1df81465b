"""Adapters within a model, such as PEFT's LoRA, merged into the weights that they adapt.

Adapted layers are known by what they offer, so that nothing here needs PEFT.
"""

import copy

from torch import nn


def without_wrapper(model: nn.Module) -> nn.Module:
    """The model inside a wrapper such as `PeftModel`, adapted layers and all; any other model as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def has_adapters(model: nn.Module) -> bool:
    """Whether any layer of a model is adapted."""
    return any(_is_adapted(module) for module in model.modules())


def merged(model: nn.Module) -> nn.Module:
    """A plain copy of an adapted model, with every adapter folded into the weights; the model stays as it is.

    Layer by layer it is what PEFT's `merge_and_unload` does, which only `PeftModel` has: models adapted by
    `model.add_adapter(...)` have nothing like it, and saved they would be their adapters alone.

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
    for name in ("peft_config", "_hf_peft_config_loaded"):  # by these Transformers knows an adapted model
        vars(model).pop(name, None)
    return model


def _is_adapted(module: nn.Module) -> bool:
    return hasattr(module, "unload_and_optionally_merge_module") or hasattr(module, "get_base_layer")


def _plain_layer(module: nn.Module) -> nn.Module:
    """The layer that an adapted one becomes."""
    if hasattr(module, "unload_and_optionally_merge_module"):
        return module.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
    module.merge()
    return module.get_base_layer()
