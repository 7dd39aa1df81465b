"""What we use of other libraries beyond their documentation, by name: an upgrade that changes it fails here first."""

import ast
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import datasets
import huggingface_hub
import pytest
import torch
from builders import tiny_vit
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainerState, TrainingArguments
from transformers.utils import PushInProgress

ROOT = Path(__file__).parents[1]

# Methods that we override, and functions that we call, with their parameters; several where releases differ.
SIGNATURES = {
    "transformers.Trainer._get_output_dir": "(self, trial)",
    "transformers.Trainer._load_best_model": "(self)",
    "transformers.Trainer._load_optimizer_and_scheduler": "(self, checkpoint)",
    "transformers.Trainer._load_from_checkpoint": "(self, resume_from_checkpoint, model=None)",
    "transformers.Trainer._push_from_checkpoint": "(self, checkpoint_folder)",
    "transformers.Trainer._save_checkpoint": "(self, model, trial)",
    "transformers.Trainer.save_model": "(self, output_dir=None, _internal_call=False)",
    "transformers.Trainer.set_initial_training_values": "(self, args, dataloader)",
    "transformers.Trainer.get_optimizer_cls_and_kwargs": "(args, model=None)",
    "transformers.Trainer.get_decay_parameter_names": "(self, model)",
    "transformers.Trainer.init_hf_repo": ("(self, token=None, private=None)", "(self, token=None)"),  # before 5.19
    "transformers.trainer_callback.CallbackHandler.on_push_begin": "(self, args, state, control, **kwargs)",
    "transformers.trainer_utils.rotate_checkpoints": (
        "(output_dir, save_total_limit=None, best_model_checkpoint=None, use_mtime=False,"
        " checkpoint_prefix='checkpoint')"
    ),
    "transformers.utils.PushInProgress.is_done": "(self)",
    "transformers.utils.PushInProgress.wait_until_done": "(self)",
    "transformers.hf_argparser.HfArgumentParser._parse_dataclass_field": "(parser, field)",
    "accelerate.data_loader.prepare_data_loader": (
        "(dataloader, device=None, num_processes=None, process_index=None, split_batches=False, put_on_device=False,"
        " rng_types=None, dispatch_batches=None, even_batches=True, slice_fn_for_dispatch=None,"
        " use_seedable_sampler=False, data_seed=None, non_blocking=False, use_stateful_dataloader=False,"
        " torch_device_mesh=None)"
    ),
    "accelerate.data_loader.skip_first_batches": "(dataloader, num_batches=0)",
    "accelerate.commands.launch.launch_command": "(args)",
    "accelerate.commands.launch.launch_command_parser": "(subparsers=None)",
    "accelerate.commands.launch.simple_launcher": "(args)",
    "accelerate.utils.prepare_simple_launcher_cmd_env": "(args)",
    "huggingface_hub.utils.sha.git_hash": "(data)",
    "gradio.utils.get_upload_folder": "()",
}


def _upload_info() -> bool:
    info = huggingface_hub.CommitOperationAdd("a.txt", b"text").upload_info
    return info.size == 4 and len(info.sha256) == 32


def _file_on_the_hub() -> bool:
    lfs = {"size": 1, "sha256": "00", "pointerSize": 1}
    file = huggingface_hub.hf_api.RepoFile(path="a", size=1, oid="11", lfs={**lfs, "oid": "00"})
    return (file.path, file.size, file.blob_id, file.lfs.sha256) == ("a", 1, "11", "00")


def _values_of_a_training() -> bool:
    """What `set_initial_training_values` returns: epochs first, steps last."""
    trainer = Trainer(nn.Linear(1, 1), TrainingArguments(num_train_epochs=3, use_cpu=True, report_to="none"))
    values = trainer.set_initial_training_values(trainer.args, range(5))
    return values[0] == 3 and values[-1] == 15


def _checkpointed_module() -> bool:
    """Each module that is checkpointed knows that, and the function that does it."""
    model = tiny_vit()
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    modules = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    return bool(modules) and all(callable(module._gradient_checkpointing_func) for module in modules)


def _versions_of_a_tensor() -> bool:
    tensor = torch.zeros(1)
    before = tensor._version
    tensor.add_(1)
    return tensor._version == before + 1


def _buffers_of_a_module() -> bool:
    module = nn.BatchNorm1d(1)
    return module._buffers["running_mean"] is module.running_mean


def _modules_of_a_module() -> bool:
    module = nn.Sequential(nn.ReLU())
    return module._modules["0"] is module[0]


# Attributes, constants and what functions return; each check is true as long as they are what we take them for.
ATTRIBUTES: dict[str, Callable[[], Any]] = {
    "transformers.Trainer.set_initial_training_values()": _values_of_a_training,
    "transformers.Trainer.push_in_progress": lambda: PushInProgress([]).jobs == [],
    "transformers.TrainerState.log_history": lambda: TrainerState().log_history == [],
    "transformers.trainer.TRAINER_STATE_NAME": lambda: constant("transformers.trainer", "TRAINER_STATE_NAME"),
    "transformers.trainer_utils.PREFIX_CHECKPOINT_DIR": lambda: (
        constant("transformers.trainer_utils", "PREFIX_CHECKPOINT_DIR") == "checkpoint"
    ),
    "transformers.PreTrainedModel._gradient_checkpointing_func": _checkpointed_module,
    "transformers.PreTrainedModel._hf_peft_config_loaded": lambda: PreTrainedModel._hf_peft_config_loaded is False,
    "accelerate.Accelerator.scaler": lambda: accelerate.Accelerator(cpu=True).scaler is None,
    "datasets.Dataset._fingerprint": lambda: isinstance(datasets.Dataset.from_dict({"a": [1]})._fingerprint, str),
    "datasets.config.HF_DATASETS_CACHE": lambda: Path(datasets.config.HF_DATASETS_CACHE),
    "huggingface_hub.CommitOperationAdd.upload_info": _upload_info,
    "huggingface_hub.hf_api.RepoFile": _file_on_the_hub,
    "huggingface_hub.utils.httpx": lambda: issubclass(huggingface_hub.utils.httpx.HTTPError, Exception),
    "torch.Tensor._version": _versions_of_a_tensor,
    "torch.nn.Module._buffers": _buffers_of_a_module,
    "torch.nn.Module._modules": _modules_of_a_module,
    "torch.nn.modules.batchnorm._BatchNorm": lambda: issubclass(nn.BatchNorm2d, nn.modules.batchnorm._BatchNorm),
    "torch.nn.modules.batchnorm._NormBase": lambda: issubclass(nn.BatchNorm2d, nn.modules.batchnorm._NormBase),
    "torch._dynamo.config.recompile_limit": lambda: isinstance(torch._dynamo.config.recompile_limit, int),
}
# Private by name, but of Python's own library or documented.
PUBLIC = {"_actions", "_replace"}


def constant(module: str, name: str) -> Any:
    """Of a module that is not documented itself."""
    return getattr(importlib.import_module(module), name)


def resolve(dotted: str) -> Any:
    """The object of a dotted name."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise AssertionError(f"there is no {dotted}")


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name):
    signature = inspect.signature(resolve(name))
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    known = SIGNATURES[name]
    found = str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    assert found in ((known,) if isinstance(known, str) else known)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attribute(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a Trainer creates its output folder
    assert ATTRIBUTES[name]()


@pytest.mark.parametrize("folder", ["advbn_hf", "recipes"])
def test_every_private_name_that_we_use_is_listed(folder):
    listed = {part for name in (*SIGNATURES, *ATTRIBUTES) for part in name.split(".")} | PUBLIC
    used, own = set(), set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                own.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own.add(node.id)
            elif isinstance(node, ast.Attribute):
                is_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                (own if is_self and isinstance(node.ctx, ast.Store) else used).add(node.attr)
    private = {name for name in used - own if name.startswith("_") and not name.startswith("__")}
    assert private <= listed


def test_every_private_part_of_the_trainer_that_we_use_is_listed():
    names = set()
    for path in (ROOT / "advbn_hf" / "trainer.py", *(ROOT / "advbn_hf" / "training").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                names |= {node.name, *(argument.arg for argument in node.args.args)}
            elif isinstance(node, ast.Attribute):
                names.add(node.attr)
    taken = {name for name in names if name.startswith("_") and not name.startswith("__") and hasattr(Trainer, name)}
    assert taken <= {name.rpartition(".")[2] for name in SIGNATURES if name.startswith("transformers.Trainer.")}
