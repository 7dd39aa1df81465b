"""Options from YAML and the command line, and the one line that says what is wrong with them."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from advbn_hf import AdvBNConfig, AdvBNTrainingArguments, InputError
from advbn_hf.training.arguments import DataArguments, ModelArguments
from advbn_hf.training.augmentation import AugmentationArguments
from advbn_hf.utils.options import option_names, parse


@dataclass
class Options:
    """Some options of each kind."""

    name: str | None = None
    rate: float = 0.1
    count: int = 1
    switch: bool = True
    sizes: list[int] = field(default_factory=list)
    mode: Literal["fast", "slow"] = "fast"
    hub_token: str | None = None


def parsed(*arguments, types=(Options,)):
    return parse(types, list(arguments))


def write(path, text):
    path.write_text(text)
    return str(path)


def test_options_override_the_file(tmp_path):
    path = write(tmp_path / "a.yaml", "name: x\nrate: 1e-3\nswitch: false\nsizes: [1, 2]\ncount: null\n")
    (options,) = parsed(path)
    assert options == Options(name="x", rate=1e-3, switch=False, sizes=[1, 2])
    (options,) = parsed(path, "--rate", "0.5", "--switch", "true", "--sizes", "7")
    assert options == Options(name="x", rate=0.5, switch=True, sizes=[7])


def test_the_default_file_runs_without_arguments_only(tmp_path):
    path = write(tmp_path / "a.yaml", "name: from_file\n")
    assert parse((Options,), [], default_file=path)[0].name == "from_file"
    assert parse((Options,), ["--count", "2"], default_file=path)[0].name is None


@dataclass
class Required:
    """An option without a default."""

    folder: str


def test_a_file_gives_what_is_required(tmp_path):
    path = write(tmp_path / "a.yaml", "folder: 2024-01-01\n")
    assert parsed(path, types=(Required,))[0].folder == "2024-01-01"
    with pytest.raises(InputError, match="folder"):
        parsed(types=(Required,))


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("rate: 1e-6", "rate", 1e-6),
        ("rate: 2", "rate", 2.0),
        ("count: '3'", "count", 3),
        ("switch: 'no'", "switch", False),
        ("sizes: 4", "sizes", [4]),
        ("sizes: []", "sizes", []),
        ("name: 5", "name", "5"),
        ("name: --help", "name", "--help"),
        ("name: -1", "name", "-1"),
        ("mode: slow", "mode", "slow"),
    ],
)
def test_values_of_a_file(tmp_path, text, name, value):
    read = getattr(parsed(write(tmp_path / "a.yaml", text))[0], name)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "rate: fast",
        "rate: [0.1, 0.2]",
        "rate: {a: 1}",
        "rate: true",
        "count: 3.5",
        "count: true",
        "switch: maybe",
        "sizes: [1, x]",
        "sizes: {a: 1}",
        "name: [a, b]",
        "mode: medium",
    ],
)
def test_values_of_the_wrong_kind_are_named(tmp_path, text):
    with pytest.raises(InputError) as raised:
        parsed(write(tmp_path / "a.yaml", text))
    assert str(raised.value).startswith(f"{tmp_path}/a.yaml: {text.partition(':')[0]}: ")
    assert "\n" not in str(raised.value)


def test_names_of_options():
    names = option_names((Options,))
    assert {"name", "rate", "switch", "no_switch", "help"} <= names
    assert "hub_token" not in names


def test_a_shipped_file_goes_by_its_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    types = (ModelArguments, DataArguments, AugmentationArguments, AdvBNConfig, AdvBNTrainingArguments)
    assert parsed("quickstart", "--max_steps", "7", types=types)[1].dataset_name == "embedded"
    for name in ("quickstrat", "quickstart.yaml"):
        with pytest.raises(InputError, match=f"^{name}: cannot be read"):
            parsed(name, types=types)
    write(tmp_path / "quickstart", "dataset_name: mine")
    assert parsed("quickstart", types=types)[1].dataset_name == "mine"


def test_nested_values_arrive_as_json(tmp_path):
    path = write(tmp_path / "a.yaml", "name: {model_type: resnet, depths: [1, 2]}\n")
    assert parsed(path)[0].name == '{"model_type": "resnet", "depths": [1, 2]}'


@pytest.mark.parametrize(("text", "value"), [("per_sample", "per_sample"), ("8", 8)])
def test_number_of_perturbations_is_a_number_or_per_sample(text, value):
    assert parsed("--num_perturbations", text, types=(AdvBNConfig,))[0].num_perturbations == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cuont", "2"], r"option cuont;.* count\?"),
        (["--zzzzzz"], "option zzzzzz;.* --help"),
        (["--rate", "fast"], "--rate: .*'fast'"),
        (["--rate"], "--rate: "),
        (["--name", "a", "b"], "value 'b'"),
        (["--hub_token", "hf_x"], "hub_token: "),
        (["missing.yaml"], "missing.yaml: "),
    ],
)
def test_bad_command_lines(arguments, message):
    with pytest.raises(InputError, match=message) as raised:
        parsed(*arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cuont: 2\n", r"key cuont;.* count\?"),
        ("epsilon: 2\n", "key epsilon"),
        ("a: [1\n", "YAML"),
        ("- 1\n", "mapping"),
        ("", "mapping"),
        ("hub_token: hf_x\n", "hub_token: "),
        ("name: !!python/object/apply:os.system ['true']\n", "YAML"),
        ("\x00", "YAML"),
    ],
)
def test_bad_files_are_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as raised:
        parsed(write(tmp_path / "bad.yaml", text))
    assert str(raised.value).startswith(f"{tmp_path}/bad.yaml: ")
    assert "\n" not in str(raised.value)


def test_values_out_of_range_are_one_line():
    with pytest.raises(InputError, match=r"epsilon .*-1"):
        parsed("--epsilon", "-1", types=(AdvBNConfig,))
    with pytest.raises(InputError, match=r"^eval_strategy: .*sometimes"):
        parsed("--eval_strategy", "sometimes", types=(AdvBNTrainingArguments,))


def test_values_out_of_range_in_a_file_are_named(tmp_path):
    with pytest.raises(InputError, match=r"epsilon .*-1"):
        parsed(write(tmp_path / "a.yaml", "epsilon: -1"), types=(AdvBNConfig,))
    with pytest.raises(InputError, match=r"^eval_strategy: .*sometimes"):
        parsed(write(tmp_path / "a.yaml", "eval_strategy: sometimes"), types=(AdvBNTrainingArguments,))
