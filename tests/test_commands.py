"""The command `advbn`: what it says, which options go where, and that it works away from any checkout."""

import logging
import os
import re
import signal
import subprocess
import sys
import zipfile
from contextlib import chdir
from pathlib import Path

import psutil
import pytest
from accelerate.commands import launch
from hatchling import build
from jobs import job

from advbn_hf import AdvBNForImageClassification, __version__, commands
from advbn_hf.training.checkpoints import last_complete_checkpoint
from advbn_hf.utils.files import shipped

ROOT = Path(__file__).parents[1]
# What pip writes for the entry point.
CONSOLE_SCRIPT = f"""#!{sys.executable}
import sys
from importlib.metadata import distribution
(entry,) = distribution("advbn_hf").entry_points.select(name="advbn")
sys.exit(entry.load()())
"""
TINY = {
    "max_steps": 2,
    "base_epochs": 0.02,
    "baseline": "false",
    "max_eval_samples": 4,
    "cache_stem_features": "false",
}
TINY = [text for name, value in TINY.items() for text in (f"--{name}", value)]
ONE, TWO = [], ["--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]


@pytest.fixture
def here(monkeypatch, capsys):
    """Runs the command in this process: exit code, stdout, lines of stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["advbn", *arguments])
        code = 0
        try:
            commands.main()
        except SystemExit as left:
            code = left.code
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    return run


def test_help_and_version(here):
    for arguments in ([], ["--help"], ["-h"]):
        code, out, err = here(*arguments)
        assert (code, err) == (0, [])
        assert set(commands.RECIPES) <= set(out.split())
    assert here("--version") == (0, f"advbn_hf {__version__}\n", [])


def test_an_unknown_command_is_one_line(here):
    code, out, err = here("fintune", "--max_steps", "2")
    assert (code, out, len(err)) == (2, "", 1)
    assert "finetune" in err[0]


@pytest.mark.parametrize("command", commands.RECIPES)
def test_each_command_has_its_recipes_help(here, command):
    code, out, _ = here(command, "--help")
    assert code == 0
    options = {"finetune": "--epsilon", "convert": "OUTPUT_DIR", "push": "--repo_id", "interpolate": "--alpha"}
    option = options.get(command, "--model")
    assert option in out
    assert ("--num_processes" in out) == (command in ("finetune", "evaluate", "visualize"))


def split(command, arguments):
    script = shipped(f"recipes/{commands.RECIPES[command].file}")
    return commands.split_options(arguments.split(), commands.launcher_parser(), script)


@pytest.mark.parametrize(
    ("arguments", "launcher", "recipe"),
    [
        ("my.yaml --model x", "", "my.yaml --model x"),
        ("--num_processes 2 my.yaml --model x", "--num_processes 2", "my.yaml --model x"),
        ("my.yaml --num-processes 2 --sets a b", "--num-processes 2", "my.yaml --sets a b"),
        ("my.yaml --sets a b --num_processes=2", "--num_processes=2", "my.yaml --sets a b"),
        ("--multi_gpu my.yaml --cpu --bf16 true", "--multi_gpu --cpu", "my.yaml --bf16 true"),
        ("--model x --mixed_precision", "--mixed_precision", "--model x"),
        ("--module --no_python --multi_gpu", "--multi_gpu", "--module --no_python"),
    ],
)
def test_the_launchers_options_may_stand_anywhere(arguments, launcher, recipe):
    assert split("evaluate", arguments) == (launcher.split(), recipe.split())


def test_a_name_that_both_have_is_the_recipes():
    arguments = "--gradient_accumulation_steps 2 --gradient-accumulation-steps=2 --gpu_ids 0 --debug x"
    launcher, recipe = split("finetune", arguments)
    assert launcher == ["--gpu_ids", "0"]
    assert recipe == ["--gradient_accumulation_steps", "2", "--gradient-accumulation-steps=2", "--debug", "x"]
    assert "--gradient_accumulation_steps" in split("evaluate", arguments)[0]


@pytest.mark.parametrize(
    ("launcher", "name"),
    [
        ("--num_processes two", "num_processes"),
        ("--multi_gpu --num_processes 1", "multi_gpu"),
        ("--config_file nowhere.yaml", "nowhere.yaml"),
    ],
)
def test_a_mistake_in_the_launchers_options_is_one_line_and_exit_code_2(monkeypatch, here, launcher, name):
    monkeypatch.setenv("ADVBN_REPORTED", "")
    monkeypatch.setattr(launch, "simple_launcher", launch.simple_launcher)
    try:
        code, out, err = here("evaluate", *launcher.split(), "--model", "x")
    finally:
        logging.disable(logging.NOTSET)
    assert (code, out, len(err)) == (2, "", 1)
    assert name in err[0]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that the wheel is installed in, with the console script."""
    folder = tmp_path_factory.mktemp("installed")
    with chdir(ROOT):
        wheel = build.build_wheel(str(folder))
    with zipfile.ZipFile(folder / wheel) as archive:
        archive.extractall(folder)
    (folder / "advbn").write_text(CONSOLE_SCRIPT)
    (folder / "advbn").chmod(0o755)
    return folder


@pytest.fixture
def start(installed, tmp_path):
    """Starts the command in an empty folder outside of any checkout."""

    def popen(*arguments):
        of_a_launch = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK", "LOCAL_RANK")
        env = {name: value for name, value in os.environ.items() if name not in of_a_launch}
        env |= {"PYTHONPATH": str(installed), "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
        env |= {"OMP_NUM_THREADS": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "300"}
        command = [installed / "advbn", *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=tmp_path, env=env, stdout=pipe, stderr=pipe, text=True)

    return popen


@pytest.fixture
def advbn(start):
    """Runs the command away from any checkout: exit code, stdout, stderr."""

    def run(*arguments):
        process = start(*arguments)
        out, err = process.communicate(timeout=600)
        return process.returncode, out, err

    return run


@pytest.fixture
def training(start, folders):
    """Starts a fine-tuning of a small model, and returns when it has trained for a step."""

    def begin(*launcher):
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # as it is where nothing runs in background
        options = ["--max_steps", 100_000, "--logging_steps", 1, "--disable_tqdm", "true"]
        process = start("finetune", *job(folders, "run", *options), *launcher)
        signal.signal(signal.SIGINT, before)
        if not any("adversarial_loss" in line for line in process.stdout):
            pytest.fail(process.stderr.read())
        return process

    return begin


@pytest.mark.slow
def test_a_wheel_fine_tunes_evaluates_and_publishes(advbn, tmp_path):
    code, out, err = advbn("finetune", "quickstart", *TINY)
    assert code == 0, err
    assert "written to outputs/quickstart" in out
    AdvBNForImageClassification.from_pretrained(tmp_path / "outputs" / "quickstart")
    code, out, err = advbn("evaluate", "--model", "outputs/quickstart", "--sets", "clean", "--max_samples", 4, *TWO)
    assert code == 0, err
    assert "AdvBN auxiliary" in out
    code, out, err = advbn("push", "--checkpoint", "outputs/quickstart", "--repo_id", "me/x", "--dry_run")
    assert code == 0, err
    assert "auxiliary/model.safetensors" in out
    code, out, err = advbn("visualize", "visualize", "--decoder_steps", 2, "--num_images", 1)
    assert (code, err.splitlines()[-1].partition(":")[0]) == (2, "error")  # two steps make no decoder
    assert "decoder: " in out and "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [ONE, TWO], ids=["one process", "two processes"])
def test_a_mistake_is_one_line_and_exit_code_2(advbn, launcher):
    code, out, err = advbn("evaluate", *launcher, "--suite", "nowhere", "--model", "x")
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: suite: .*nowhere.*\n", err)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "number"), [(ONE, signal.SIGINT), (TWO, signal.SIGTERM)], ids=["one process", "two processes"]
)
def test_a_signal_reaches_the_recipe_which_saves_a_checkpoint(training, tmp_path, launcher, number):
    process = training(*launcher)
    process.send_signal(number)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 1
    assert len([line for line in err.splitlines() if "stopped by" in line]) == 1
    assert "--resume_from_checkpoint last" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert last_complete_checkpoint(tmp_path / "run") is not None


@pytest.mark.slow
def test_a_process_that_is_killed_is_one_line_and_exit_code_1(training):
    process = training(*TWO)
    psutil.Process(process.pid).children()[0].kill()
    _, err = process.communicate(timeout=600)
    assert process.returncode == 1
    assert re.fullmatch(r"error: .*rank [01].*SIGKILL", err.splitlines()[-1])
