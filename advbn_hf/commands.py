"""The command `advbn`: the recipes after `pip install`, those that compute much through Accelerate's launcher."""

import argparse
import logging
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import uuid
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import NamedTuple, NoReturn

from accelerate.commands import launch as accelerate_launch
from accelerate.commands.utils import CustomArgumentParser
from accelerate.utils import prepare_simple_launcher_cmd_env
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from .errors import InputError, check_choice, first_line, one_line
from .utils.cli import REPORTED, TRACEBACK, run
from .utils.files import shipped
from .utils.options import option_names


class Recipe(NamedTuple):
    """What a command runs."""

    file: str
    summary: str
    launched: bool = False


RECIPES = {
    "finetune": Recipe("finetune.py", "fine-tune a classifier with AdvBN, evaluate it, write its model card", True),
    "evaluate": Recipe("evaluate.py", "measure how robust classifiers are, on suites of shifted datasets", True),
    "push": Recipe("push_to_hub.py", "publish a checkpoint on the Hub"),
    "convert": Recipe("convert.py", "convert a published checkpoint to Transformers' layout"),
    "interpolate": Recipe("interpolate.py", "average the weights of a model and of the same model fine-tuned"),
    "visualize": Recipe("visualize.py", "draw what the perturbation does to images", True),
    "demo": Recipe("demo.py", "serve a page to try models on shifted images"),
}
HELP = f"""usage: advbn COMMAND [CONFIG] [--option value ...]

{{commands}}

CONFIG is a YAML file of options, or the name of one that comes with the recipes, such as quickstart.
advbn COMMAND --help lists the options of a command; advbn --version prints the version.
{TRACEBACK}=1 in the environment shows the traceback behind a one-line error.
"""
LAUNCHER_HELP = """
Options of `accelerate launch`, such as --num_processes, --multi_gpu, --mixed_precision and --config_file, may stand
anywhere among these and go to the launcher. A name that both have is the recipe's.
"""
_SETTLED = {"help", "module", "no_python", "main_training_function"}  # what to launch


def main() -> None:
    """Runs what `sys.argv` asks for: what the console script `advbn` and `python -m advbn_hf` call."""
    run(_main)


def _main() -> None:
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print(HELP.format(commands="\n".join(f"  {name:11} {recipe.summary}" for name, recipe in RECIPES.items())))
    elif command == "--version":
        print(f"advbn_hf {version('advbn_hf')}")
    else:
        check_choice("command", command, RECIPES)
        script = shipped(f"recipes/{RECIPES[command].file}")
        helps = not {"-h", "--help"}.isdisjoint(arguments)
        if RECIPES[command].launched and not helps:
            _launch(script, arguments)
        else:
            _run_here(script, command, arguments)


def _run_here(script: Path, command: str, arguments: list[str]) -> None:
    sys.argv = [f"advbn {command}", *arguments]
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        if RECIPES[command].launched:
            print(LAUNCHER_HELP)


class _LauncherParser(CustomArgumentParser):
    """Raises `InputError` where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise InputError(one_line(message))


def launcher_parser() -> argparse.ArgumentParser:
    """The parser of `accelerate launch`, which raises `InputError`."""
    subparsers = argparse.ArgumentParser("advbn").add_subparsers(parser_class=_LauncherParser)
    return accelerate_launch.launch_command_parser(subparsers)


def _launch(script: Path, arguments: list[str]) -> None:
    """Runs a recipe as `accelerate launch` does, and ends with its exit code: 2 for a person's mistake, else 1."""
    parser = launcher_parser()
    launcher, recipe = split_options(arguments, parser, script)
    accelerate_launch.simple_launcher = _become
    reported = Path(tempfile.gettempdir()) / f"advbn-{uuid.uuid4()}"
    os.environ[REPORTED] = str(reported)
    if os.environ.get(TRACEBACK) != "1":
        logging.disable(logging.ERROR)  # the launcher's reports, which would bury the recipe's one line
    try:
        accelerate_launch.launch_command(parser.parse_args([*launcher, str(script), *recipe]))
    except ChildFailedError as error:
        if any(failure.exitcode == 2 for failure in error.failures.values()):
            sys.exit(2)
        for rank, failure in error.failures.items():
            if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:  # by which the launcher ends the others
                print(f"error: the process of rank {rank} was ended by {failure.signal_name()}", file=sys.stderr)
        sys.exit(1)
    except SignalException:  # the processes have had it too, and have reported
        sys.exit(1)
    except subprocess.CalledProcessError as error:
        sys.exit(2 if error.returncode == 2 else 1)
    except (ValueError, AssertionError, FileNotFoundError) as error:
        raise InputError(f"accelerate launch: {first_line(error)}") from error
    finally:
        reported.unlink(missing_ok=True)


def split_options(arguments: list[str], parser: argparse.ArgumentParser, script: Path) -> tuple[list[str], list[str]]:
    """Tells the launcher's options from the recipe's, whichever order they stand in.

    Args:
        arguments: the command line after the command.
        parser: of the launcher.
        script: the recipe, whose `ARGUMENTS` are the dataclasses of its options; a name that both have is its own.

    Returns:
        The launcher's arguments, and the recipe's.
    """
    takes_value = {
        text: action.nargs != 0
        for action in parser._actions
        for text in action.option_strings
        if text.startswith("--") and action.dest not in _SETTLED
    }
    if takes_value.keys().isdisjoint(argument.partition("=")[0] for argument in arguments):
        return [], arguments  # and the recipe need not be imported
    own = option_names(runpy.run_path(str(script))["ARGUMENTS"])
    launcher: list[str] = []
    recipe: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        text, equals, _ = argument.partition("=")
        if text not in takes_value or text[2:].replace("-", "_") in own:
            recipe.append(argument)
        else:
            launcher += [argument, *islice(remaining, int(takes_value[text] and not equals))]
    return launcher, recipe


def _become(args: argparse.Namespace) -> NoReturn:
    """Puts the recipe in this process's place, so that signals reach it and the shell has its exit code."""
    command, environment = prepare_simple_launcher_cmd_env(args)
    environment.pop(REPORTED)
    if os.name == "posix":
        sys.stdout.flush()
        os.execvpe(command[0], command, environment)
    process = subprocess.Popen(command, env=environment)  # Windows's exec would return to the shell at once
    while True:
        try:
            sys.exit(process.wait())
        except KeyboardInterrupt:  # the recipe has had it too, and saves a checkpoint
            continue
