"""Plain fine-tuning of the same tail: what every gain is measured against."""

from torch import Tensor

from .backbones.split import Recording
from .method.losses import AdvBNOutput, cross_entropy
from .modeling import AdvBNForImageClassification


class PlainForImageClassification(AdvBNForImageClassification):
    """A classifier cut as for AdvBN whose tail is trained on clean features alone, with `AdvBNTrainer` or by hand.

    Wrap with `AdvBNConfig(auxiliary_norms=False)`: without adversarial features an auxiliary branch learns nothing.
    """

    def training_output(
        self, recording: Recording, labels: Tensor, smoothing: float = 0.0, measure_ascent: bool = False
    ) -> AdvBNOutput:
        """CE(tail(f)); nothing is perturbed, so there is no ascent to measure."""
        logits = self.tail_logits(recording, None, "clean")
        loss = cross_entropy(logits, labels, smoothing)
        return AdvBNOutput(loss=loss, logits=logits, clean_loss=loss)
