"""A model's predictions for the images of a set: enough for all metrics, small enough to keep on disk."""

import os
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..utils.files import write_atomically


@dataclass(frozen=True)
class TopPredictions:
    """The most probable classes of n images.

    Args:
        classes: int32 (n, k), those of the k largest probabilities, largest first.
        confidence: float32 (n,), the largest probability.
    """

    classes: Tensor
    confidence: Tensor


@dataclass(frozen=True)
class Predictions:
    """What one model predicts for the images of a set, in the order of its rows.

    Args:
        rows: int64 (n,), row numbers of the images; those that could not be decoded are missing.
        labels: int64 (n,), the true classes.
        by_column: "clean", "auxiliary" and "mean" (of both branches' probabilities) of a model with both branches;
            "plain" of any other.
    """

    rows: Tensor
    labels: Tensor
    by_column: dict[str, TopPredictions]

    def correct(self, column: str, k: int = 1) -> Tensor:
        """Whether the label is among the k most probable classes, bool (n,).

        Args:
            column: a key of `by_column`.
            k: at most the number of classes that were kept.
        """
        return (self.by_column[column].classes[:, :k] == self.labels[:, None]).any(dim=1)

    def save(self, path: str | os.PathLike) -> None:
        """Writes them as one safetensors file, atomically.

        Args:
            path: the file.
        """
        tensors = {"rows": self.rows, "labels": self.labels}
        for column, top in self.by_column.items():
            tensors |= {f"{column}.classes": top.classes, f"{column}.confidence": top.confidence}
        # The order of the columns, which safetensors does not keep.
        metadata = {"columns": ",".join(self.by_column)}
        write_atomically(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Predictions | None":
        """Reads what `save` wrote.

        Args:
            path: the file.

        Returns:
            The predictions, or None if there is no such file or it cannot be read, so that they are computed again.
        """
        if not Path(path).is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                columns = file.metadata()["columns"].split(",")
                by_column = {
                    name: TopPredictions(file.get_tensor(f"{name}.classes"), file.get_tensor(f"{name}.confidence"))
                    for name in columns
                }
                return cls(file.get_tensor("rows"), file.get_tensor("labels"), by_column)
        except (SafetensorError, KeyError, OSError):
            return None
