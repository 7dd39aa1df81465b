"""Options from YAML and the command line, and the one line that says what is wrong with them."""

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from advbn_hf import AdvBNConfig, AdvBNTrainingArguments, InputError
from advbn_hf.utils import cli
from advbn_hf.utils.cli import parse, run, use_all_cores


@dataclass
class Options:
    """Some options of each kind."""

    name: str | None = None
    rate: float = 0.1
    count: int = 1
    switch: bool = True
    sizes: list[int] = field(default_factory=list)
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


def test_nested_values_arrive_as_json(tmp_path):
    path = write(tmp_path / "a.yaml", "name: {model_type: resnet, depths: [1, 2]}\n")
    assert parsed(path)[0].name == '{"model_type": "resnet", "depths": [1, 2]}'


@pytest.mark.parametrize(("text", "value"), [("per_sample", "per_sample"), ("8", 8)])
def test_number_of_perturbations_is_a_number_or_per_sample(text, value):
    assert parsed("--num_perturbations", text, types=(AdvBNConfig,))[0].num_perturbations == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cuont", "2"], "unknown option cuont; did you mean count?"),
        (["--zzzzzz"], "unknown option zzzzzz; see --help"),
        (["--rate", "fast"], "argument --rate: invalid float value: 'fast'"),
        (["--rate"], "argument --rate: expected one argument"),
        (["--name", "a", "b"], "unexpected value 'b'"),
        (["--hub_token", "hf_x"], "hub_token: tokens come from the environment"),
        (["missing.yaml"], "missing.yaml: cannot be read"),
    ],
)
def test_bad_command_lines(arguments, message):
    with pytest.raises(InputError) as raised:
        parsed(*arguments)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cuont: 2\n", "unknown key cuont; did you mean count?"),
        ("epsilon: 2\n", "unknown key epsilon"),
        ("a: [1\n", "not valid YAML"),
        ("- 1\n", "must hold a mapping"),
        ("", "must hold a mapping"),
        ("hub_token: hf_x\n", "tokens come from the environment"),
        ("name: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("\x00", "not valid YAML"),
    ],
)
def test_bad_files_are_named(tmp_path, text, message):
    with pytest.raises(InputError) as raised:
        parsed(write(tmp_path / "bad.yaml", text))
    assert str(raised.value).startswith(f"{tmp_path}/bad.yaml: ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_values_out_of_range_are_one_line():
    with pytest.raises(InputError, match="epsilon must be a number above 0, got -1"):
        parsed("--epsilon", "-1", types=(AdvBNConfig,))
    with pytest.raises(InputError, match=r"^eval_strategy: sometimes is not a valid"):
        parsed("--eval_strategy", "sometimes", types=(AdvBNTrainingArguments,))


def test_exit_code_and_line(capsys):
    def fail():
        raise InputError(
            "Caught InputError in DataLoader worker process 0.\nTraceback\n  x\nadvbn.InputError: row 1: bad"
        )

    with pytest.raises(SystemExit) as left:
        run(fail)
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: row 1: bad\n"


def test_cores_are_used_where_accelerate_left_one(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        use_all_cores()
        assert torch.get_num_threads() == 1  # somebody's choice
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
        use_all_cores()
        assert torch.get_num_threads() == len(os.sched_getaffinity(0))
    finally:
        torch.set_num_threads(before)


PRINTS_WORLD = """
from accelerate import Accelerator
from advbn_hf.utils.cli import run

def main():
    print("world", Accelerator().num_processes)
run(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--cpu", "--num_processes", "2"], "error: num_processes: accelerate launch was asked for several"),
        (["--cpu", "--num_processes", "1"], "world 1"),
        (["--multi_gpu", "--num_processes", "2"], "world 2"),
    ],
    ids=str,
)
def test_the_promised_number_of_processes_runs(options, expected, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PRINTS_WORLD)
    hidden = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    env = {**kept, "PYTHONPATH": str(Path(cli.__file__).parents[2]), "ACCELERATE_USE_CPU": "true"}
    command = ["accelerate", "launch", "--main_process_port", "0", *options, str(script)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert expected in done.stdout + done.stderr
