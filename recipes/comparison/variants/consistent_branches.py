"""Both branches agree: the Jensen-Shannon divergence of their predictions is added to the loss."""

from advbn_hf.backbones.split import Recording
from advbn_hf.method.losses import AdvBNOutput, Objective
from advbn_hf.modeling import AdvBNForImageClassification

from ..peers.augmix_jsd import jensen_shannon


class ConsistentBranchesForImageClassification(AdvBNForImageClassification):
    """AdvBN whose branches agree on the features and the perturbed ones; its config is a `ConsistencyConfig`."""

    def training_output(self, recording: Recording, objective: Objective) -> AdvBNOutput:
        """AdvBN's loss + weight * JS(clean, auxiliary)."""
        output = super().training_output(recording, objective)
        divergence = jensen_shannon(output.logits, output.auxiliary_logits)
        output.loss = output.loss + self.advbn_config.consistency * divergence
        return output
