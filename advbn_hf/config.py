"""`AdvBNConfig`: every setting of the method, checked at construction."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

from transformers.utils import cached_file

from .errors import InputError, first_line, suggestion
from .utils.documents import read_json
from .utils.files import check_folder, finish_filling, write_atomically
from .utils.predicates import is_integer, is_number

_LARGEST_BLOCK = 16  # images of which a share is adversarial
CONFIG_FILE = "advbn_config.json"
AUXILIARY_FOLDER = "auxiliary"  # the auxiliary branch in a checkpoint
STRUCTURE = ("insert_after", "auxiliary_norms", "freeze_stem")  # fixed at a model's construction


def _setting(default: Any, help: str) -> Any:
    """A dataclass field with the help text that the recipes' `--help` shows."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class AdvBNConfig:
    """Where and how strongly Adversarial Batch Normalization perturbs the features of a classifier.

    `AdvBNConfig()` is the setting that we recommend, `AdvBNConfig.paper()` the published one (Shu et al. 2021). A
    config cannot be changed in place: `dataclasses.replace(config, epsilon=0.5)` gives a new one.

    Args:
        insert_after: module path (as in `model.named_modules()`) after which the features are perturbed, or
            "embeddings": what comes before the first stage or block, in a vision transformer the projection of the
            patches, before positions and class token; the end of the first stage where nothing comes before; the first
            block or stage of at most a quarter of the image's side where what comes before is larger, as in a RegNet
            or an EfficientNet; or "auto", the published place: the end of the first of the last four stages of a
            hierarchical network, the first quarter of the blocks of an isotropic one.
        epsilon: the multipliers stay in [1 - epsilon, 1 + epsilon]; above 0. For a small vision transformer and where
            texture is the class 0.5, with steps of 0.25, is better; the trainer says where to try less.
        step_size: length of one sign step of the multipliers; above 0.
        num_steps: number of sign steps; 0 or more.
        random_start: whether the multipliers start uniformly at random in their box instead of at 1.
        num_perturbations: independent perturbations per forward pass, over all processes together and at least one
            each: an integer from 1 to the batch size, or "per_sample". The batch is cut into that many contiguous
            groups, each with its own mean and multipliers.
        adversarial_share: share of each batch, drawn at every step, that goes through ascent and auxiliary branch;
            above 0, at most 1. At 1 every image goes through both branches. Below 1 the others go through the clean
            branch and none through both, which halves the cost (Fast AdvProp, Mei et al. 2022), and at equal time
            is as robust or better for small networks; 1 was better for a pretrained one, and where epochs are few. Of
            every b consecutive images a are adversarial, a / b the nearest fraction with b of at most 16. A last
            batch too short for two images in each branch goes through both.
        attack_fraction: share of each group's samples whose loss is maximised; above 0, at most 1.
        patches_only: whether tokens that are no patches of the image (class token, registers) keep their values and
            count in no statistic; else they are perturbed like patches. There are such tokens at deeper places of
            vision transformers, none after "embeddings"; they are known by not varying with the image before attention
            mixes them.
        auxiliary_norms: whether adversarial features go through auxiliary norms (AdvProp, Xie et al. 2020).
        freeze_stem: whether everything up to the insertion point keeps its weights and statistics.

    Raises:
        InputError: if a value is out of its range.

    Example:
        >>> config = AdvBNConfig(insert_after="auto", epsilon=1.1)
        >>> dataclasses.replace(config, num_steps=6).epsilon
        1.1
        >>> AdvBNConfig.from_dict(config.to_dict()) == config
        True
    """

    insert_after: str = _setting(
        "embeddings", 'Module path after which features are perturbed, or "embeddings" or "auto".'
    )
    epsilon: float = _setting(2.0, "The multipliers stay in [1 - epsilon, 1 + epsilon].")
    step_size: float = _setting(1.0, "Length of one sign step of the multipliers.")
    num_steps: int = _setting(1, "Number of sign steps.")
    random_start: bool = _setting(True, "Start the multipliers uniformly at random in their box instead of at 1.")
    num_perturbations: int | str = _setting(
        "per_sample", 'Independent perturbations per forward pass over all processes: a number, or "per_sample".'
    )
    adversarial_share: float = _setting(
        0.5, "Share of each batch that is adversarial; below 1 the others are the clean branch's, and none is in both."
    )
    attack_fraction: float = _setting(1.0, "Share of each group's samples whose loss is maximised.")
    patches_only: bool = _setting(False, "Leave tokens that are no patches, such as a class token, as they are.")
    auxiliary_norms: bool = _setting(True, "Send adversarial features through auxiliary norms.")
    freeze_stem: bool = _setting(True, "Freeze everything up to the insertion point.")

    def __post_init__(self) -> None:
        groups = self.num_perturbations
        if isinstance(groups, str) and groups.isdecimal() and len(groups) < 20:  # from a command line
            object.__setattr__(self, "num_perturbations", int(self.num_perturbations))
        for name in ("auxiliary_norms", "freeze_stem", "patches_only", "random_start"):
            _require(self, name, isinstance(getattr(self, name), bool), "true or false")
        _require(
            self,
            "insert_after",
            isinstance(self.insert_after, str) and self.insert_after,
            'a module path, "embeddings" or "auto"',
        )
        for name in ("epsilon", "step_size"):
            _require(self, name, is_number(getattr(self, name)) and getattr(self, name) > 0, "a number above 0")
        _require(self, "num_steps", is_integer(self.num_steps, least=0), "an integer, 0 or more")
        _require(
            self,
            "num_perturbations",
            self.num_perturbations == "per_sample" or is_integer(self.num_perturbations, least=1),
            'an integer, 1 or more, or "per_sample"',
        )
        _require(
            self,
            "attack_fraction",
            is_number(self.attack_fraction) and 0 < self.attack_fraction <= 1,
            "above 0 and at most 1",
        )
        _require(
            self,
            "adversarial_share",
            is_number(self.adversarial_share) and 0 < self.adversarial_share <= 1,
            "above 0 and at most 1",
        )
        if self.num_perturbations == "per_sample":
            _require(self, "attack_fraction", self.attack_fraction == 1, "1 where num_perturbations is per_sample")

    @property
    def adversarial_fraction(self) -> Fraction:
        """`adversarial_share` as a / b: of every b consecutive images a are adversarial; b is at most 16."""
        smallest = Fraction(1, _LARGEST_BLOCK)
        nearest = Fraction(self.adversarial_share).limit_denominator(_LARGEST_BLOCK)
        return Fraction(1) if self.adversarial_share == 1 else min(max(nearest, smallest), 1 - smallest)

    def smallest_batch(self, branch: int) -> int:
        """The smallest batch that gives each branch so many images, of which a batch norm needs two."""
        share = self.adversarial_fraction
        fewest = min(share.numerator, share.denominator - share.numerator)  # of a branch, of so many images
        return branch if share == 1 else share.denominator * math.ceil(branch / fewest)

    @classmethod
    def paper(cls) -> Self:
        """The published setting (Shu et al. 2021): six steps of 0.2 from 1, one perturbation on each of four GPUs."""
        return cls(
            insert_after="auto",
            epsilon=1.1,
            step_size=0.2,
            num_steps=6,
            random_start=False,
            num_perturbations=4,
            adversarial_share=1.0,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "AdvBNConfig") -> Self:
        """Builds a config from a mapping; `source` names it in error messages.

        Raises:
            InputError: if a key is unknown or a value out of range.
        """
        known = [setting.name for setting in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                raise InputError(f"{source}: unknown key {key!r}; {suggestion(key, known)}")
        return cls(**values)

    def difference_in_structure(self, other: Self) -> tuple[str, Any, Any] | None:
        """The first setting of `STRUCTURE` in which two configs differ: its name, this value, the other; or None."""
        for name in STRUCTURE:
            here, there = getattr(self, name), getattr(other, name)
            if here != there:
                return name, here, there
        return None

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, ready for JSON."""
        return dataclasses.asdict(self)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes `advbn_config.json` into a folder, created if missing."""
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        write_atomically(Path(save_directory) / CONFIG_FILE, json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Reads `advbn_config.json` from a folder or a Hub repository.

        Args:
            pretrained_model_name_or_path: folder or Hub id.
            kwargs: what `transformers.utils.cached_file` takes, such as `revision` and `token`.

        Raises:
            InputError: if there is no such file, or it does not hold a valid config.
        """
        name = str(pretrained_model_name_or_path)
        check_folder(name)
        finish_filling(name)
        try:
            path = cached_file(name, CONFIG_FILE, **kwargs)
        except OSError as error:
            raise InputError(f"{name} has no readable {CONFIG_FILE}: {first_line(error)}") from error
        values = read_json(path)
        if not isinstance(values, dict):
            raise InputError(f"{name}/{CONFIG_FILE} must hold one JSON object of settings")
        return cls.from_dict(values, source=f"{name}/{CONFIG_FILE}")


def _require(config: AdvBNConfig, name: str, holds: Any, wanted: str) -> None:
    if not holds:
        raise InputError(f"{name} must be {wanted}, got {getattr(config, name)!r}")
