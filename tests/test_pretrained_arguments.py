"""Arguments of `from_pretrained` and `save_pretrained`: each does what it does in Transformers, or is refused."""

import ast
import inspect
import textwrap

import pytest
import torch
from builders import models_equal, move_auxiliary_norms, tiny_resnet, tiny_vit
from parity import wrap
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, PreTrainedModel, ViTConfig, ViTImageProcessorPil

from advbn_hf import AdvBNConfig, AdvBNForImageClassification
from advbn_hf import pretrained as pretrained_module
from advbn_hf.errors import InputError

LABELS = {index: f"class {index}" for index in range(5)}
# Both branches are loaded as Transformers loads them.
LOADED = {
    "ignore_mismatched_sizes": True,
    "config": ViTConfig(**tiny_vit().config.to_diff_dict() | {"hidden_dropout_prob": 0.5, "num_labels": 5}),
    "attn_implementation": "eager",
    "experts_implementation": "eager",
    "dtype": torch.bfloat16,
    "torch_dtype": "float64",
    "device_map": "cpu",
    "max_memory": {"cpu": "1GB"},
    "offload_buffers": True,
    "use_safetensors": True,
    "disable_mmap": True,
    "fusion_config": {"patch_embeddings": True},
    "key_mapping": {"^not_there": "nor_there"},
    "subfolder": "",
    "local_files_only": True,
    "force_download": True,
    "cache_dir": "cache",
    "revision": "main",
    "token": "hf_nobody",
    "proxies": {"https": "nowhere:1"},
    "tqdm_class": None,
    "trust_remote_code": False,
    "weights_only": True,
    "use_kernels": False,
    "output_loading_info": False,
    "id2label": LABELS,  # fields of the config, by name
}
WITH = {"ignore_mismatched_sizes": {"num_labels": 7}, "max_memory": {"device_map": "auto"}}
OF_FILES = ("revision", "token", "cache_dir", "local_files_only", "force_download", "subfolder", "proxies")

# What would run code, or be without effect.
NOT_LOADED = {
    "config": AdvBNConfig(),
    "weights_only": False,
    "trust_remote_code": True,
    "output_loading_info": True,
    "use_kernels": True,
    "kernel_config": {},
    "allow_all_kernels": True,
    "code_revision": "main",
    "state_dict": {},
    "offload_folder": "offloaded",
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "variant": "not_there",
    "use_safetensors": False,
    "generation_config": "generation_config.json",
    "gguf_file": "model.gguf",
    "adapter_kwargs": {"revision": "other"},
    "adapter_name": "other",
    "tp_plan": "auto",
    "tp_size": 1,
    "device_mesh": "cpu",
    "distributed_config": {},
    "from_tf": True,
    "from_flax": True,
    "not_an_option": 1,
}
NAMED_BY = {"offload_folder": "device_map", "variant": "not_there", "use_safetensors": "pytorch_model.bin"}
# What Transformers takes out and does not use, or sets itself.
UNUSED = {"_commit_hash", "_from_auto", "_from_pipeline", "pretrained_model_name_or_path"}
PREPARED = {
    "offload_folder": {"device_map": {"vit": "cpu", "classifier": "disk"}},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A ViT, whose attention may be computed in several ways, with unlike branches."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model = wrap(tiny_vit())
    move_auxiliary_norms(model)
    model.save_pretrained(folder)
    return folder


def taken(method):
    """Names of a method's arguments, those that it takes out of `kwargs` too."""
    code = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(method))))
    popped = {
        call.args[0].value
        for call in ast.walk(code)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in ("pop", "get")
        and ast.unparse(call.func.value) == "kwargs"
        and isinstance(call.args[0], ast.Constant)
    }
    named = inspect.signature(method).parameters.values()
    return popped | {one.name for one in named if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}


def test_every_argument_of_loading_has_its_place():
    """One that another version of Transformers adds is named here."""
    methods = (PreTrainedModel.from_pretrained, AutoModelForImageClassification.from_pretrained)
    assert set().union(*map(taken, methods)) - {"cls"} - LOADED.keys() - NOT_LOADED.keys() - UNUSED == set()


@pytest.mark.parametrize("option", LOADED)
def test_a_branch_is_loaded_as_transformers_loads_it(option, checkpoint):
    given = WITH.get(option, {}) | {option: LOADED[option]}
    loaded = AdvBNForImageClassification.from_pretrained(checkpoint, **given)
    expected = AutoModelForImageClassification.from_pretrained(checkpoint, **given)
    exported = loaded.export("clean")
    for name in ("dtype", "device"):
        assert getattr(exported, name) == getattr(expected, name)
    assert exported.config.to_dict() == expected.config.to_dict()
    assert exported.config._attn_implementation == expected.config._attn_implementation
    if option == "ignore_mismatched_sizes":  # new heads, as random as any
        assert loaded.config.num_labels == 7
        exported.classifier = expected.classifier = None
    assert models_equal(exported, expected)
    auxiliary = AutoModelForImageClassification.from_pretrained(checkpoint, **given | {"subfolder": "auxiliary"})
    assert models_equal(loaded.export("auxiliary").vit, auxiliary.vit)


def test_where_files_are_is_known_for_all_of_them(monkeypatch, checkpoint):
    asked = []
    monkeypatch.setattr(
        pretrained_module.AdvBNConfig, "from_pretrained", lambda name, **given: asked.append(given) or AdvBNConfig()
    )
    given = {option: LOADED[option] for option in OF_FILES}
    AdvBNForImageClassification.from_pretrained(checkpoint, **given)
    assert asked == [given]


@pytest.mark.parametrize("option", NOT_LOADED)
def test_what_is_not_loaded_is_said_in_one_line(option, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = PREPARED.get(option, {}) | {option: NOT_LOADED[option]}
    with pytest.raises(InputError, match=NAMED_BY.get(option, option.removesuffix("_config"))) as caught:
        AdvBNForImageClassification.from_pretrained(checkpoint, **given)
    assert "\n" not in str(caught.value)


def test_arguments_by_position(checkpoint, tmp_path):
    """Transformers passes them to a model's constructor, or has `is_main_process` where a processor is given here."""
    with pytest.raises(TypeError, match="positional"):
        AdvBNForImageClassification.from_pretrained(checkpoint, 5)
    with pytest.raises(InputError, match="processor"):
        wrap().save_pretrained(tmp_path / "saved", True)
    assert not (tmp_path / "saved").exists()


# Each branch is saved as Transformers saves it.
SAVED = {
    "max_shard_size": "20KB",
    "variant": "half",
    "save_original_format": False,
    "token": "hf_nobody",
    "save_function": print,
    "safe_serialization": True,
    "save_peft_format": True,
    "push_to_hub": False,
    "distributed_checkpoint": False,
}
NOT_SAVED = {
    "push_to_hub": True,
    "safe_serialization": False,
    "save_peft_format": False,
    "distributed_checkpoint": True,
    "repo_id": "me/mine",
    "commit_message": "mine",
    "create_pr": True,
    "not_an_option": 1,
}
ELSEWHERE = {"self", "save_directory", "is_main_process", "state_dict"}  # tested below


def test_every_argument_of_saving_has_its_place():
    """Likewise."""
    assert taken(PreTrainedModel.save_pretrained) - SAVED.keys() - NOT_SAVED.keys() - ELSEWHERE == set()


@pytest.mark.parametrize("option", SAVED)
def test_a_branch_is_saved_as_transformers_saves_it(option, tmp_path):
    model, given = wrap(tiny_vit()), {option: SAVED[option]}
    move_auxiliary_norms(model)
    model.save_pretrained(tmp_path / "ours", **given)
    for branch, folder in (("clean", tmp_path / "ours"), ("auxiliary", tmp_path / "ours" / "auxiliary")):
        model.export(branch).save_pretrained(tmp_path / branch, **given)
        files = {path.name for path in (tmp_path / branch).iterdir()}
        assert files <= {path.name for path in folder.iterdir()}
        for file in (tmp_path / branch).glob("*.safetensors"):
            one, other = load_file(file), load_file(folder / file.name)
            assert one.keys() == other.keys()
            assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("option", NOT_SAVED)
def test_what_is_not_saved_is_said_in_one_line(option, tmp_path):
    with pytest.raises(InputError, match=option) as caught:
        wrap().save_pretrained(tmp_path / "saved", **{option: NOT_SAVED[option]})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "saved").exists()


def test_one_process_of_several_saves(tmp_path):
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    wrap().save_pretrained(tmp_path / "saved", processor=processor, is_main_process=False)
    assert not (tmp_path / "saved").exists()


def test_a_state_dict_is_taken_apart_by_branch(tmp_path):
    model, other = wrap(tiny_resnet()), wrap(tiny_resnet())
    move_auxiliary_norms(model)
    other.save_pretrained(tmp_path, state_dict=model.state_dict())
    assert models_equal(AdvBNForImageClassification.from_pretrained(tmp_path), model)


@pytest.mark.parametrize("where", ["run", "runs/first"])
def test_a_checkpoint_in_a_folder_of_a_repository(where, tmp_path):
    model = wrap(tiny_resnet())
    move_auxiliary_norms(model)
    model.save_pretrained(tmp_path / where)
    loaded = AdvBNForImageClassification.from_pretrained(
        tmp_path, subfolder=where, trust_remote_code=False, output_loading_info=False
    )
    assert models_equal(loaded, model)


def test_options_of_loading_beside_a_model():
    with pytest.raises(InputError, match="revision"):
        AdvBNForImageClassification.from_backbone(tiny_resnet(), revision="main")
