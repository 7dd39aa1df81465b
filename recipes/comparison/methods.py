"""The methods that are compared: each a class that `AdvBNTrainer` trains, its settings, and the views it sees."""

import copy
import re
from dataclasses import dataclass, field, replace
from typing import Literal

import yaml
from transformers import PreTrainedModel

from advbn_hf.config import AdvBNConfig
from advbn_hf.errors import InputError, check_choice
from advbn_hf.modeling import AdvBNForImageClassification, PlainForImageClassification

from .controls import DoubledLossForImageClassification
from .peers import advprop
from .peers.augmix_jsd import ConsistencyConfig, ConsistentViewsForImageClassification
from .peers.dsu import DSUForImageClassification
from .peers.feature_styles import FeatureStyleConfig
from .peers.mixstyle import MixStyleConfig, MixStyleForImageClassification
from .peers.normalization_perturbation import (
    NormalizationPerturbationConfig,
    NormalizationPerturbationForImageClassification,
)
from .peers.several_places import DSUAtPlacesForImageClassification, MixStyleAtPlacesForImageClassification
from .variants.clean_gradient import CleanGradientForImageClassification
from .variants.consistent_branches import ConsistentBranchesForImageClassification
from .variants.in_range import InRangeForImageClassification
from .variants.mean_over_all import MeanOverAllForImageClassification
from .variants.mixed_first import MixedChannelsForImageClassification, MixedStylesForImageClassification
from .variants.momentum import MomentumForImageClassification
from .variants.random_step import RandomStepForImageClassification
from .variants.two_places import RandomDepthForImageClassification, TwoDepthsForImageClassification
from .variants.two_visits import TwoVisitsForImageClassification
from .views import Views


@dataclass(frozen=True)
class Method:
    """How a classifier is fine-tuned.

    Args:
        family: "control", "peer", "advbn" or "beyond" the paper; plots have a colour for each.
        model_class: computes the training loss.
        config: its settings.
        views: what it sees of each image.
        averaging: decay of a moving average of the weights, which is then the result; None for the last weights.
    """

    family: Literal["control", "peer", "advbn", "beyond"]
    model_class: type[AdvBNForImageClassification]
    config: AdvBNConfig
    views: Views = field(default_factory=Views)
    averaging: float | None = None

    def wrap(self, base: PreTrainedModel) -> AdvBNForImageClassification:
        """A model to fine-tune, on a copy of `base`."""
        return self.model_class.from_backbone(copy.deepcopy(base), self.config)


# Here every image goes through both branches, so that methods differ in one thing at a time.
_OURS = AdvBNConfig(adversarial_share=1.0)
_PLAIN, _RANDOM = replace(_OURS, auxiliary_norms=False), replace(_OURS, num_steps=0)
_PAPER = AdvBNConfig.paper()
_STAGES = replace(_OURS, insert_after="auto")  # a second place is found where the first is a stage
_ADVBN = AdvBNForImageClassification
_DECAY = 0.99  # of averaged weights

METHODS: dict[str, Method] = {
    "plain": Method("control", PlainForImageClassification, _PLAIN),
    "plain_averaged": Method("control", PlainForImageClassification, _PLAIN, averaging=_DECAY),
    "plain_doubled": Method("control", DoubledLossForImageClassification, _PLAIN),
    "random_batch": Method("control", _ADVBN, replace(_RANDOM, num_perturbations=1)),
    "random_4": Method("control", _ADVBN, replace(_RANDOM, num_perturbations=4)),
    "random_image": Method("control", _ADVBN, _RANDOM),
    "mixstyle": Method("peer", MixStyleForImageClassification, MixStyleConfig()),
    "mixstyle_places": Method("peer", MixStyleAtPlacesForImageClassification, MixStyleConfig()),
    "dsu": Method("peer", DSUForImageClassification, FeatureStyleConfig()),
    "dsu_places": Method("peer", DSUAtPlacesForImageClassification, FeatureStyleConfig()),
    "np": Method("peer", NormalizationPerturbationForImageClassification, NormalizationPerturbationConfig()),
    "advprop": Method("peer", advprop.AdvPropForImageClassification, advprop.PUBLISHED),
    "augmix": Method("peer", PlainForImageClassification, _PLAIN, views=Views("augmix")),
    "augmix_jsd": Method(
        "peer",
        ConsistentViewsForImageClassification,
        ConsistencyConfig(auxiliary_norms=False),
        views=Views("image and two augmix"),
    ),
    "apr_s": Method("peer", PlainForImageClassification, _PLAIN, views=Views("apr_s")),
    "prime": Method("peer", PlainForImageClassification, _PLAIN, views=Views("prime")),
    "randaugment": Method("peer", PlainForImageClassification, _PLAIN, views=Views("randaugment")),
    "randconv": Method("peer", PlainForImageClassification, _PLAIN, views=Views("randconv")),
    "trivialaugment": Method("peer", PlainForImageClassification, _PLAIN, views=Views("trivialaugment")),
    "advbn_paper_1": Method("advbn", _ADVBN, replace(_PAPER, num_perturbations=1)),
    "advbn_paper_4": Method("advbn", _ADVBN, _PAPER),
    "advbn_quarter": Method("advbn", _ADVBN, replace(_PAPER, attack_fraction=0.25)),
    "advbn": Method("advbn", _ADVBN, _OURS),
    "augmix_advbn": Method("advbn", _ADVBN, _OURS, views=Views("augmix")),
    "prime_advbn": Method("advbn", _ADVBN, _OURS, views=Views("prime")),
    "randaugment_advbn": Method("advbn", _ADVBN, _OURS, views=Views("randaugment")),
    "randconv_advbn": Method("advbn", _ADVBN, _OURS, views=Views("randconv")),
    "trivialaugment_advbn": Method("advbn", _ADVBN, _OURS, views=Views("trivialaugment")),
    "advbn_consistent": Method("beyond", ConsistentBranchesForImageClassification, ConsistencyConfig(consistency=5.0)),
    "advbn_random_step": Method("beyond", RandomStepForImageClassification, _OURS),
    "advbn_clean_gradient": Method("beyond", CleanGradientForImageClassification, _OURS),
    "advbn_two_visits": Method("beyond", TwoVisitsForImageClassification, _OURS),
    "advbn_mean_over_all": Method("beyond", MeanOverAllForImageClassification, replace(_OURS, adversarial_share=0.5)),
    "advbn_momentum": Method("beyond", MomentumForImageClassification, _OURS),
    "advbn_mixed_start": Method("beyond", MixedStylesForImageClassification, _OURS),
    "advbn_in_range": Method("beyond", InRangeForImageClassification, _OURS),
    "advbn_correlated": Method("beyond", MixedChannelsForImageClassification, _OURS),
    "advbn_two_depths": Method("beyond", TwoDepthsForImageClassification, _STAGES),
    "advbn_random_depth": Method("beyond", RandomDepthForImageClassification, _STAGES),
    "advbn_averaged": Method("beyond", _ADVBN, _OURS, averaging=_DECAY),
}


def method_called(text: str) -> Method:
    """A method of `METHODS`, with settings of its own if the text has any.

    Args:
        text: "NAME" or "NAME:setting=value,setting=value"; settings are those of the method's config, and
            `view_times` and `view_share` those of its views.

    Raises:
        InputError: if there is no such method or setting, or a value is out of its range.

    Example:
        >>> method_called("advbn:epsilon=0.5").config.epsilon
        0.5
    """
    name, _, settings = text.partition(":")
    check_choice("methods", name, METHODS)
    method, values = METHODS[name], {}
    for part in filter(None, settings.split(",")):
        if not (found := re.fullmatch(r"(\w+)=(.+)", part)):
            raise InputError(f"methods: {text}: {part!r} is not setting=value")
        values[found[1]] = yaml.safe_load(found[2])
    strength = {name: values.pop(f"view_{name}") for name in ("times", "share") if f"view_{name}" in values}
    try:
        views = replace(method.views, **strength)
        config = type(method.config).from_dict({**method.config.to_dict(), **values}, source=f"methods: {text}")
    except TypeError as error:  # a comparison with a value of another type
        raise InputError(f"methods: {text}: a setting has a value of the wrong type ({error})") from error
    return replace(method, config=config, views=views)
