"""Controls: what else could explain a gain."""

from advbn_hf.backbones.split import Recording
from advbn_hf.method.losses import AdvBNOutput, Objective
from advbn_hf.modeling import PlainForImageClassification


class DoubledLossForImageClassification(PlainForImageClassification):
    """Plain fine-tuning with twice the loss: AdvBN's gradient is a sum of two, which alone acts as a larger step."""

    def training_output(self, recording: Recording, objective: Objective) -> AdvBNOutput:
        """2 CE(tail(f))."""
        output = super().training_output(recording, objective)
        output.loss = 2 * output.loss
        return output
