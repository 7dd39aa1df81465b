"""What a model answered to every image of a set: enough for all metrics, small enough to keep on disk."""

import os
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..utils.files import write_atomically


@dataclass(frozen=True)
class Answers:
    """The answers of one model, or one branch of it, to n images.

    Args:
        top: int32 (n, k), the classes of the k largest probabilities, largest first.
        confidence: float32 (n,), the largest probability.
    """

    top: Tensor
    confidence: Tensor


@dataclass(frozen=True)
class Predictions:
    """The answers to a set, in the order of its rows.

    Args:
        rows: int64 (n,), row numbers of the images; those that could not be decoded are missing.
        labels: int64 (n,), the right classes.
        answers: "clean", "auxiliary" and "mean" (of both branches' probabilities) of an AdvBN model; "plain" of any
            other.
    """

    rows: Tensor
    labels: Tensor
    answers: dict[str, Answers]

    def correct(self, column: str, k: int = 1) -> Tensor:
        """Whether the label is among the first k answers, bool (n,).

        Args:
            column: a key of `answers`.
            k: at most the number of answers that were kept.
        """
        return (self.answers[column].top[:, :k] == self.labels[:, None]).any(dim=1)

    def save(self, path: str | os.PathLike) -> None:
        """Writes them as one safetensors file, whole.

        Args:
            path: the file.
        """
        tensors = {"rows": self.rows, "labels": self.labels}
        for column, answers in self.answers.items():
            tensors |= {f"{column}.top": answers.top, f"{column}.confidence": answers.confidence}
        # The order of the columns, which safetensors does not keep.
        metadata = {"columns": ",".join(self.answers)}
        write_atomically(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Predictions | None":
        """Reads what `save` wrote.

        Args:
            path: the file.

        Returns:
            The predictions, or None if there is no such file or it cannot be read, so that they are made anew.
        """
        if not Path(path).is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                columns = file.metadata()["columns"].split(",")
                answers = {
                    name: Answers(file.get_tensor(f"{name}.top"), file.get_tensor(f"{name}.confidence"))
                    for name in columns
                }
                return cls(file.get_tensor("rows"), file.get_tensor("labels"), answers)
        except (SafetensorError, KeyError, OSError):
            return None
