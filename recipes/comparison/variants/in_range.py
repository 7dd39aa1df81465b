"""Perturbed features that stay in the range of the batch's own, which those of a ReLU6 otherwise leave."""

from torch import Tensor

from advbn_hf.backbones.norms import Branch
from advbn_hf.backbones.split import Recording
from advbn_hf.modeling import AdvBNForImageClassification


class InRangeForImageClassification(AdvBNForImageClassification):
    """AdvBN whose perturbed features are clamped between the least and the largest of the features."""

    def tail_logits(self, recording: Recording, features: Tensor | None, branch: Branch) -> Tensor:
        """As `AdvBNForImageClassification.tail_logits`, of clamped features."""
        if features is not None:
            features = features.clamp(*recording.features.aminmax())
        return super().tail_logits(recording, features, branch)
