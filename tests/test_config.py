"""`AdvBNConfig`: ranges, files, and the two settings that have names."""

import dataclasses
import json

import pytest

from advbn_hf import AdvBNConfig, InputError


def test_published_setting():
    config = AdvBNConfig.paper()
    assert (config.epsilon, config.step_size, config.num_steps) == (1.1, 0.2, 6)
    assert (config.num_perturbations, config.random_start, config.attack_fraction) == (4, False, 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epsilon", 0),
        ("epsilon", -1.0),
        ("epsilon", float("nan")),
        ("epsilon", "1.1"),
        ("step_size", 0),
        ("step_size", float("inf")),
        ("num_steps", -1),
        ("num_steps", 1.5),
        ("num_steps", True),
        ("num_perturbations", 0),
        ("num_perturbations", "per_pixel"),
        ("attack_fraction", 0),
        ("attack_fraction", 1.1),
        ("attack_fraction", 0.5),  # with one perturbation per sample, the others would never be attacked
        ("random_start", "yes"),
        ("auxiliary_norms", 1),
        ("patches_only", "no"),
        ("insert_after", ""),
    ],
)
def test_values_out_of_range_are_named(field, value):
    with pytest.raises(InputError, match=f"^{field} ") as raised:
        AdvBNConfig(**{field: value})
    assert "\n" not in str(raised.value)


def test_number_of_perturbations_may_come_as_text():
    assert AdvBNConfig(num_perturbations="8").num_perturbations == 8


def test_saved_config_comes_back(tmp_path):
    config = dataclasses.replace(AdvBNConfig.paper(), insert_after="resnet.encoder.stages.1", attack_fraction=0.25)
    config = dataclasses.replace(config, patches_only=True)
    config.save_pretrained(tmp_path / "new")
    assert AdvBNConfig.from_pretrained(tmp_path / "new") == config
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["advbn_config.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "JSON"),
        ("[1]", "object"),
        (json.dumps({"epsilom": 1}), "'epsilom'.*'epsilon'"),
        (json.dumps({"epsilon": -1}), "epsilon .*-1"),
    ],
)
def test_bad_config_file_is_named(tmp_path, content, message):
    (tmp_path / "advbn_config.json").write_text(content)
    with pytest.raises(InputError, match=message):
        AdvBNConfig.from_pretrained(tmp_path)


def test_missing_config_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"advbn_config.json"):
        AdvBNConfig.from_pretrained(tmp_path)
