"""A checkpoint saved over another: it loads as what was saved last, nothing of the old stays."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from builders import models_equal, move_auxiliary_norms, tiny_convnext, tiny_resnet, tiny_vit
from peft import LoraConfig, get_peft_model
from transformers import AutoImageProcessor, AutoModelForImageClassification, ViTImageProcessorPil

from advbn_hf import AdvBNForImageClassification, InputError
from advbn_hf.utils.files import remove_unfinished


def wrap(backbone):
    model = AdvBNForImageClassification.from_backbone(backbone)
    move_auxiliary_norms(model)
    return model


def processor(size):
    return ViTImageProcessorPil(size={"height": size, "width": size})


def adapted():
    targets = LoraConfig(target_modules=["q_proj"], modules_to_save=["classifier"])
    return wrap(get_peft_model(tiny_vit(seed=3), targets))


def names_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


WAYS = {
    "single": lambda folder: save(folder, tiny_resnet(seed=1)),
    "sharded": lambda folder: save(folder, tiny_resnet(seed=2), max_shard_size="60KB"),
    "many shards": lambda folder: save(folder, tiny_resnet(seed=9), max_shard_size="20KB"),
    "sharded as well": lambda folder: save(folder, tiny_resnet(seed=4), max_shard_size="60KB"),
    "fewer classes": lambda folder: save(folder, tiny_resnet(3, seed=5)),
    "another architecture": lambda folder: save(folder, tiny_convnext(seed=6)),
    "no processor": lambda folder: save(folder, tiny_convnext(seed=7), size=None),
    "merged": lambda folder: save(folder, adapted()),
    "a variant": lambda folder: save(folder, tiny_convnext(seed=8), variant="fp16"),
}


def save(folder, model, size=32, **options):
    model = model if isinstance(model, AdvBNForImageClassification) else wrap(model)
    model.save_pretrained(folder, processor=size and processor(size), **options)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Each way in a folder of its own."""
    root = tmp_path_factory.mktemp("saved")
    for way, write in WAYS.items():
        write(root / way)
    return root


AFTER = {
    "single": "all",
    "sharded": "all",
    "many shards": ["single", "sharded", "many shards"],
    "no processor": ["single"],
    "merged": ["sharded"],
    "fewer classes": ["sharded"],
}
PAIRS = [
    (before, after)
    for after, those in AFTER.items()
    for before in WAYS
    if before != "a variant" and (those == "all" or before in those)
]


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_what_was_saved_last_is_there_and_nothing_else(saved, tmp_path, before, after):
    folder = shutil.copytree(saved / before, tmp_path / "model")
    WAYS[after](folder)
    assert names_in(folder) == names_in(saved / after)
    for branch in ("", "auxiliary"):
        loaded, expected = (
            AutoModelForImageClassification.from_pretrained(root / branch) for root in (folder, saved / after)
        )
        assert models_equal(loaded, expected)


def test_foreign_weights_and_adapters_are_replaced_and_what_people_put_there_stays(tmp_path):
    get_peft_model(tiny_vit(), LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    kept = [
        "README.md",
        ".git/config",
        "notes.txt",
        "checkpoint-2/model.safetensors",
        "auxiliary/notes.txt",
        "model.py",
    ]
    for name in kept:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    model = save(tmp_path, tiny_resnet())
    assert models_equal(AdvBNForImageClassification.from_pretrained(tmp_path), model)
    assert AutoModelForImageClassification.from_pretrained(tmp_path).config.model_type == "resnet"
    assert [(tmp_path / name).read_text() for name in kept] == ["mine"] * len(kept)
    assert not names_in(tmp_path) & {"adapter_config.json", "adapter_model.safetensors", "pytorch_model.bin"}


def test_a_processor_that_somebody_saved_beside_the_model_stays(tmp_path):
    processor(48).save_pretrained(tmp_path)
    for _ in range(2):
        save(tmp_path, tiny_resnet(), size=None)
        assert AutoImageProcessor.from_pretrained(tmp_path).size["height"] == 48
    save(tmp_path, tiny_resnet(), size=40)
    for branch in ("", "auxiliary"):
        assert AutoImageProcessor.from_pretrained(tmp_path / branch).size["height"] == 40


def test_a_processor_under_another_name_is_replaced(tmp_path):
    save(tmp_path, tiny_resnet())
    for branch in ("", "auxiliary"):
        (tmp_path / branch / "preprocessor_config.json").rename(tmp_path / branch / "processor_config.json")
    save(tmp_path, tiny_resnet(), size=40)
    assert not [name for name in names_in(tmp_path) if name.endswith("/processor_config.json")]
    assert not (tmp_path / "processor_config.json").exists()


def test_weights_of_two_variants_lie_beside_each_other(saved, tmp_path):
    folder = shutil.copytree(saved / "another architecture", tmp_path / "model")
    model = WAYS["a variant"](folder)
    assert names_in(folder) == names_in(saved / "another architecture") | names_in(saved / "a variant")
    loaded = AdvBNForImageClassification.from_pretrained(folder, variant="fp16")
    assert models_equal(loaded, model)
    save(folder, tiny_convnext(seed=8), variant="fp16", max_shard_size="60KB")
    assert not (folder / "model.fp16.safetensors").exists()
    assert models_equal(AdvBNForImageClassification.from_pretrained(folder, variant="fp16"), model)


class Dies(BaseException):
    """As a killed process: nothing is cleaned up after it."""


def dying_at(monkeypatch, turn):
    """Has the process die in the n-th of the calls that change the folder; counts them."""
    calls = []

    def guard(owner, name):
        real = getattr(owner, name)

        def call(*args, **kwargs):
            calls.append(name)
            if len(calls) >= turn:
                raise Dies
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    for name in ("replace", "rename", "unlink"):
        guard(Path, name)
    monkeypatch.setattr(shutil, "rmtree", lambda *args, **kwargs: calls.append("rmtree"))
    return calls


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"), [("single", "sharded"), ("sharded", "single"), ("sharded", "sharded as well")]
)
def test_whenever_the_process_dies_the_old_one_loads_or_the_new(saved, tmp_path, monkeypatch, before, after):
    expected = {way: AdvBNForImageClassification.from_pretrained(saved / way) for way in (before, after)}
    found = []
    for turn in range(1, 100):
        folder = shutil.copytree(saved / before, tmp_path / str(turn))
        with monkeypatch.context() as patch:
            calls = dying_at(patch, turn)
            with suppress(Dies):
                WAYS[after](folder)
        loaded = AdvBNForImageClassification.from_pretrained(folder)
        found.append(next(way for way, model_of in expected.items() if models_equal(loaded, model_of)))
        if found[-1] == after:
            assert names_in(folder) == names_in(saved / after)
        if len(calls) < turn:
            break
    assert found[0] == before
    assert found == sorted(found, key=[before, after].index)
    assert len(found) > 5
    print(f"{before} -> {after}: died at {len(found) - 1} moments; {found.count(before)} times the old one was there")


def test_what_a_dead_process_had_not_moved_is_moved_by_the_next_save_and_the_next_run(saved, tmp_path):
    for finish in (lambda folder: save(folder, tiny_resnet(seed=1)), remove_unfinished):
        folder = shutil.copytree(saved / "sharded", tmp_path / finish.__name__)
        complete = shutil.copytree(saved / "single", folder / ".complete-1")
        (complete / ".replaced.json").write_text(json.dumps(["model.safetensors.index.json"]))
        finish(folder)
        assert not complete.exists()
        assert not (folder / "model.safetensors.index.json").exists()
        assert models_equal(
            AdvBNForImageClassification.from_pretrained(folder),
            AdvBNForImageClassification.from_pretrained(saved / "single"),
        )


def test_nothing_outside_the_folder_is_removed(saved, tmp_path):
    folder = shutil.copytree(saved / "single", tmp_path / "model")
    (tmp_path / "mine").write_text("")
    (folder / "link").symlink_to(tmp_path)
    (folder / ".complete-1").mkdir()
    names = ["../mine", str(tmp_path / "mine"), "link/mine"]
    (folder / ".complete-1" / ".replaced.json").write_text(json.dumps(names))
    AdvBNForImageClassification.from_pretrained(folder)
    assert (tmp_path / "mine").exists()


@pytest.mark.parametrize("name", ["auxiliary", "config.json"])
def test_what_is_in_the_way_is_named_before_anything_changes(tmp_path, name):
    (tmp_path / name).mkdir() if "." in name else (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=name):
        save(tmp_path, tiny_resnet())
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["/nothing/here", "./nothing", "nothing/here/at/all", "../nothing"])
def test_a_folder_that_is_not_there_is_named(name):
    for load in (AdvBNForImageClassification.from_pretrained, AdvBNForImageClassification.from_backbone):
        with pytest.raises(InputError, match=f"no folder {name}"):
            load(name)
