"""Any bytes as `advbn_config.json` or as a recipe's YAML file: settings that hold, or one line."""

import json
from itertools import pairwise

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from inputs import many, objects, read_or_refuse, spoilt, values

from advbn_hf import AdvBNConfig
from advbn_hf.training.arguments import ModelArguments
from advbn_hf.utils.options import parse

SETTINGS = {
    "insert_after": st.sampled_from(["embeddings", "auto", "resnet.encoder.stages.0"]),
    "epsilon": st.floats(0.1, 2),
    "step_size": st.floats(0.1, 2),
    "num_steps": st.integers(0, 6),
    "random_start": st.booleans(),
    "num_perturbations": st.integers(1, 8) | st.sampled_from(["per_sample", "8", "9" * 5000, "٣"]),
    "attack_fraction": st.sampled_from([1.0, 0.25]),
    "auxiliary_norms": st.booleans(),
    "freeze_stem": st.booleans(),
}
OPTIONS = SETTINGS | {
    "model_name_or_path": st.text(max_size=8),
    "base_epochs": st.floats(0, 9),
    "backbone_config": st.just({"model_type": "resnet", "depths": [1, 2]}),
    "baseline": st.booleans(),
    "help": st.none(),
    "hub_token": st.text(max_size=3),
}
CONFIGS = objects(SETTINGS) | values
FILES = objects(OPTIONS) | values


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def holds(config):
    assert AdvBNConfig(**config.to_dict()) == config
    assert 0 < config.epsilon < float("inf") and config.num_steps >= 0


@pytest.mark.slow
@many
@given(content=st.one_of(CONFIGS.map(json.dumps).map(str.encode), spoilt(CONFIGS.map(json.dumps).map(str.encode))))
def test_config_file(folder, content):
    (folder / "advbn_config.json").write_bytes(content)
    config = read_or_refuse(lambda: AdvBNConfig.from_pretrained(folder))
    if config is not None:
        holds(config)


def to_yaml(value):
    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")


@pytest.mark.slow
@many
@given(content=st.one_of(FILES.map(to_yaml), spoilt(FILES.map(to_yaml))))
def test_recipe_file(folder, content):
    (folder / "recipe.yaml").write_bytes(content)
    types = (ModelArguments, AdvBNConfig)
    parsed = read_or_refuse(lambda: parse(types, [str(folder / "recipe.yaml")]))
    if parsed is not None:
        holds(parsed[1])


@pytest.mark.slow
@many
@given(
    arguments=st.lists(st.sampled_from(["--epsilon", "--baseline", "--epsilon=1", "--", "-1"]) | st.text(), max_size=4)
)
def test_command_line(arguments):
    arguments = ["--epsilon", "1", *(text for text in arguments if text not in ("-h", "--help"))]
    parsed = read_or_refuse(lambda: parse((ModelArguments, AdvBNConfig), arguments))
    if parsed is not None:
        holds(parsed[1])


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        "a: " * 100_000,
        "epsilon: 2024-99-99",
        "epsilon: !!int x",
        "epsilon: !!bool x",
        "epsilon: !!timestamp x",
        "epsilon: !!float x",
        "num_steps: 0x" + "f" * 5000,
        "num_steps: " + "9" * 5000,
        "epsilon: !!python/name:os.system",
        "epsilon: !!python/object/new:os.system [ls]",
        "\n".join(f"{name}: &{name} [{', '.join(['*' + before] * 9)}]" for before, name in pairwise("abcdefghi")),
        "insert_after: [--help, -h]",
        "help: 1",
        '"": 1',
    ],
    ids=lambda content: content[:30],
)
def test_files_made_to_hurt(folder, content):
    (folder / "recipe.yaml").write_text(content)
    assert read_or_refuse(lambda: parse((AdvBNConfig,), [str(folder / "recipe.yaml")])) is None
    (folder / "advbn_config.json").write_text(content)
    assert read_or_refuse(lambda: AdvBNConfig.from_pretrained(folder)) is None
