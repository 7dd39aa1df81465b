"""What Trainer and PEFT ask a model for, answered by the classifier that it wraps."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import InputError


class _NotAdaptableError(InputError, AttributeError):
    """Also an `AttributeError`, so that `hasattr` and `getattr` with a default work."""


class BackboneAttributes(nn.Module):
    """Attributes of a Transformers model, for a model that wraps one."""

    backbone: PreTrainedModel

    @property
    def config(self) -> PreTrainedConfig:
        """The backbone's own config."""
        return self.backbone.config

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Number of the backbone's parameters, of both branches; Trainer estimates `total_flos` by it."""
        return self.backbone.num_parameters(only_trainable, exclude_embeddings)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.backbone.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.backbone.dtype

    def __getattr__(self, name: str) -> Any:
        """As `nn.Module.__getattr__`, but PEFT, which asks for this name, learns what it should adapt."""
        if name == "base_model_prefix":
            raise _NotAdaptableError(
                "model: adapt the backbone first, as by get_peft_model, then wrap it by from_backbone"
            )
        return super().__getattr__(name)
