"""The loss of a batch of which a share is adversarial as the mean over all of its images."""

from advbn_hf.backbones.split import Recording
from advbn_hf.method.losses import AdvBNOutput, Objective
from advbn_hf.modeling import AdvBNForImageClassification


class MeanOverAllForImageClassification(AdvBNForImageClassification):
    """AdvBN that weighs each branch by its share of the images (Mei et al., ICLR 2022), not both alike."""

    def training_output(self, recording: Recording, objective: Objective) -> AdvBNOutput:
        """(sum of CE over the clean images + sum of CE over the adversarial ones) / B."""
        output = super().training_output(recording, objective)
        clean, adversarial = (len(logits) for logits in (output.logits, output.auxiliary_logits))
        output.loss = (clean * output.clean_loss + adversarial * output.adversarial_loss) / len(objective.labels)
        return output
