"""How a wrapped classifier is loaded, saved, pushed and exported: an ordinary Transformers model of each branch."""

import tempfile
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, Literal, Self

from huggingface_hub import CommitInfo
from transformers import BaseImageProcessor, PreTrainedModel

from .backbones.adapters import has_adapters, merged
from .backbones.interpolation import interpolated
from .backbones.loading import load_classifier, refuse_options
from .backbones.norms import BRANCHES, Branch, branch_state, plain_model, two_branch_norms
from .backbones.replay import remove_replays
from .config import AUXILIARY_FOLDER, AdvBNConfig
from .errors import InputError
from .hub import full_repo_id, upload_checkpoint
from .hub.card import CARD_FILE
from .hub.contents import replaced_files
from .hub.generated_card import generated_card, may_replace
from .utils.files import filling, write_atomically

# Options that say where files are, for the config as well as for the weights.
_OF_FILES = ("revision", "token", "cache_dir", "local_files_only", "force_download", "subfolder", "proxies")
# Options that would have no effect, and why.
_NOT_LOADED = dict.fromkeys(
    ("adapter_name", "adapter_kwargs"), "checkpoints hold adapters merged; adapt the model that is loaded"
)
_NOT_SAVED = {
    "safe_serialization": "weights are always safetensors",
    "save_peft_format": "adapters are saved merged",
    "distributed_checkpoint": "weights are always complete in one folder",
}


class PretrainedBranches:
    """From the plain models of both branches to the model that has them, and back, in memory and on disk."""

    has_card = True  # whether the card's text is true of what the class trains
    backbone: PreTrainedModel
    finetuned_from: str | None
    advbn_config: AdvBNConfig

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Loads both branches of a checkpoint that `save_pretrained` wrote, to train on or to compare them.

        Args:
            pretrained_model_name_or_path: folder or Hub id.
            kwargs: for `AutoModelForImageClassification.from_pretrained`, such as `revision`, `subfolder`,
                `token` and `dtype`.

        Raises:
            InputError: if the checkpoint is missing or was not written by this class, or an option would run code or
                have no effect.
        """
        refuse_options(kwargs, _NOT_LOADED)
        hub = {name: kwargs[name] for name in _OF_FILES if name in kwargs}
        config = AdvBNConfig.from_pretrained(pretrained_model_name_or_path, **hub)
        clean = load_classifier(pretrained_model_name_or_path, **kwargs)
        kwargs["subfolder"] = "/".join(filter(None, (kwargs.get("subfolder"), AUXILIARY_FOLDER)))
        auxiliary = load_classifier(pretrained_model_name_or_path, **kwargs)
        return cls.from_branches(clean, auxiliary, config)

    @classmethod
    def from_branches(cls, clean: PreTrainedModel, auxiliary: PreTrainedModel, config: AdvBNConfig) -> Self:
        """Joins two plain classifiers that differ in the norms of their tails only, as `export` gives them.

        Args:
            clean: the clean branch, which is changed in place.
            auxiliary: the auxiliary branch.
            config: settings.
        """
        model = cls(clean, config)
        for path, norm in two_branch_norms(clean).items():
            norm.auxiliary.load_state_dict(auxiliary.get_submodule(path).state_dict())
        return model

    def save_pretrained(
        self,
        save_directory: str | Path,
        processor: BaseImageProcessor | None = None,
        is_main_process: bool = True,
        card: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Writes an ordinary Transformers checkpoint of the clean branch, `auxiliary/` with the other, and the config.

        Of a checkpoint that is there nothing stays: not its shards, index, adapters, nor a processor that was saved
        with it. All other files stay, a README.md that somebody has written or edited and weights of another `variant`
        too. If the process dies while it writes, the old checkpoint is there; while files move into place,
        `from_pretrained` moves the rest.

        Args:
            save_directory: folder; created if missing, and written atomically.
            processor: image processor to write beside both branches.
            is_main_process: whether this process writes.
            card: README.md, from `generated_card`; by default one of the settings alone.
            kwargs: for the backbone's own `save_pretrained`. A `state_dict` is one of this model, as Accelerate's
                `get_state_dict` gives it. The `save_function` of Accelerate's examples writes nothing, as in
                Transformers: weights are written by safetensors.

        Raises:
            InputError: if asked to upload, which each branch would do by itself, an adapted model's `state_dict` is
                given, which cannot be merged, there is no such option, or it would have no effect.
        """
        if kwargs.pop("push_to_hub", False):
            raise InputError("push_to_hub: call the model's push_to_hub(repo_id), which uploads both branches at once")
        kwargs.pop("save_function", None)
        refuse_options(kwargs, _NOT_SAVED)
        if unknown := sorted(kwargs.keys() - signature(PreTrainedModel.save_pretrained).parameters.keys()):
            raise InputError(f"{unknown[0]}: is no option of save_pretrained; options of uploads are push_to_hub's")
        if processor is not None and not hasattr(processor, "save_pretrained"):
            raise InputError(f"processor: must be an image processor, not {processor!r}; give others by name")
        if not is_main_process:
            return
        state_dict = kwargs.pop("state_dict", None)
        if state_dict is not None and has_adapters(self.backbone):
            raise InputError("state_dict: the adapters of a model are merged from its own weights; leave it out")
        if card is None:
            card = self._card(Path(save_directory).resolve().name, processor)
        replaced = partial(replaced_files, Path(save_directory), variant=kwargs.get("variant"))
        with filling(save_directory, replaced) as folder:
            if self.has_card and may_replace(Path(save_directory) / CARD_FILE):
                write_atomically(folder / CARD_FILE, card)
            for branch, branch_folder in zip(BRANCHES, (folder, folder / AUXILIARY_FOLDER), strict=True):
                model = plain_model(self.backbone, branch)
                model = merged(model) if has_adapters(model) else model
                of_branch = None if state_dict is None else branch_state(self.backbone, state_dict, branch)
                model.save_pretrained(branch_folder, state_dict=of_branch, **kwargs)
                if processor is not None:
                    processor.save_pretrained(branch_folder)
            self.advbn_config.save_pretrained(folder)

    def _card(self, name: str, processor: BaseImageProcessor | None, repo_id: str | None = None) -> str:
        return generated_card(
            name,
            self.advbn_config.to_dict(),
            base_model=self.finetuned_from,
            has_processor=processor is not None,
            repo_id=repo_id,
        )

    def push_to_hub(
        self, repo_id: str, processor: BaseImageProcessor | None = None, **kwargs: Any
    ) -> CommitInfo | None:
        """Uploads both branches as one commit, in the form that `save_pretrained` writes.

        Args:
            repo_id: repository on the Hub; created if missing.
            processor: image processor to upload beside both branches.
            kwargs: for `advbn_hf.hub.upload_checkpoint`, such as `commit_message`, `private`, `token` and `revision`.

        Returns:
            The commit; None where nothing had changed.

        Raises:
            InputError: if the Hub refuses; the message says what to do.
            ConnectionError: if the Hub failed or was not reached.
        """
        repo_id = full_repo_id(repo_id, kwargs.get("token"))
        card = self._card(repo_id.split("/")[1], processor, repo_id)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, processor=processor, card=card)
            return upload_checkpoint(folder, repo_id, **kwargs)

    def export(self, branch: Branch | Literal["soup"] = "clean", weight: float = 0.5) -> PreTrainedModel:
        """A plain Transformers model of the backbone's own class, independent of this one, in eval mode.

        Args:
            branch: "clean", "auxiliary", or "soup" for norms between those of both branches: running statistics are
                interpolated as weights are; `advbn_hf.backbones.interpolation.re_estimate_statistics` fits them to
                images.
            weight: share of the auxiliary branch in a soup, in 0..1.

        Raises:
            InputError: if there is no such branch, or the weight is out of its range.
        """
        if branch == "soup":
            if not 0 <= weight <= 1:
                raise InputError(f"weight must be in 0..1, got {weight}")
            return interpolated(self.export("clean"), self.export("auxiliary"), weight)
        model = merged(plain_model(self.backbone, branch))
        remove_replays(model)
        return model.eval().requires_grad_(True)
