"""AdvBN on a network of one's own: any `torch.nn.Module`, in a small Transformers model. Copy this file and change it.

python recipes/custom_model.py --output_dir DIR [--option value ...]

What a network needs: a config that rebuilds it, a `PreTrainedModel` that takes `pixel_values` and returns logits, and
their registration, so that the Auto classes find them. Whatever loads the checkpoint imports this file first; nothing
has to trust remote code.
"""

from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
    ViTImageProcessorPil,
    set_seed,
)
from transformers.modeling_outputs import ImageClassifierOutput

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments
from advbn_hf.data.images import ImageDataset, collate
from advbn_hf.data.loading import class_names, load_images
from advbn_hf.data.transforms import EvaluationTransform
from advbn_hf.utils.cli import run, use_all_cores
from advbn_hf.utils.options import parse


class Stage(nn.Sequential):
    """Halves the resolution: (B, C, H, W) to (B, out_channels, H / 2, W / 2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )


class Network(nn.Module):
    """A classifier that knows nothing of Transformers; put your own in its place."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.stages = nn.Sequential(Stage(3, width), Stage(width, 2 * width), Stage(2 * width, 4 * width))
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, 3, H, W)."""
        return self.head(self.stages(images).mean(dim=(2, 3)))


class NetworkConfig(PreTrainedConfig):
    """What rebuilds the network; it is written to `config.json`."""

    model_type = "my_network"

    def __init__(self, width: int = 16, image_size: int = 48, **kwargs) -> None:
        self.width = width
        self.image_size = image_size
        super().__init__(**kwargs)


class NetworkForImageClassification(PreTrainedModel):
    """The network as Transformers knows it."""

    config_class = NetworkConfig
    main_input_name = "pixel_values"

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.network = Network(config.width, config.num_labels)
        self.post_init()

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ImageClassifierOutput:
        """Logits, and the cross entropy where labels (B,) are given."""
        logits = self.network(pixel_values)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


AutoConfig.register(NetworkConfig.model_type, NetworkConfig)
AutoModelForImageClassification.register(NetworkConfig, NetworkForImageClassification)


def main() -> None:
    """Trains on the embedded benchmark, then loads each branch as a model of the network's own class."""
    (args,) = parse((AdvBNTrainingArguments,))
    use_all_cores()
    set_seed(args.seed)
    rows = {split: load_images("embedded", split) for split in ("train", "validation")}
    names = class_names(rows["train"])
    config = NetworkConfig(id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)})
    # Weights of your own go into the network here: network.network.load_state_dict(torch.load(..., weights_only=True))
    network = NetworkForImageClassification(config)
    # This network is untrained, so that its stem has to learn too; leave the stem of a trained one frozen.
    model = AdvBNForImageClassification.from_backbone(network, AdvBNConfig(freeze_stem=False))
    processor = ViTImageProcessorPil(size={"height": config.image_size, "width": config.image_size})
    images = {split: ImageDataset(rows[split], EvaluationTransform(processor)) for split in rows}
    trainer = AdvBNTrainer(
        model,
        args,
        train_dataset=images["train"],
        eval_dataset=images["validation"],
        data_collator=collate,
        processing_class=processor,
    )
    trainer.train()
    trainer.save_model()
    metrics = trainer.evaluate()
    for branch, folder in (("clean", {}), ("auxiliary", {"subfolder": "auxiliary"})):
        plain = AutoModelForImageClassification.from_pretrained(args.output_dir, **folder)
        accuracy = metrics[f"eval_{branch}_accuracy"]
        place = model.advbn_config.insert_after
        print(f"{branch}: {type(plain).__name__} perturbed after {place}, accuracy {accuracy:.1%}")


if __name__ == "__main__":
    run(main)
