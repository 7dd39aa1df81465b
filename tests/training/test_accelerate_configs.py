"""The Accelerate configurations are what Accelerate reads, and two processes run from one as far as a CPU allows."""

import os
import subprocess
from pathlib import Path

import finetune
import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType

FOLDER = Path(finetune.__file__).parent / "accelerate"
KINDS = {
    "one_gpu": DistributedType.NO,
    "ddp": DistributedType.MULTI_GPU,
    "several_machines": DistributedType.MULTI_GPU,
    "fsdp2": DistributedType.FSDP,
    "deepspeed_zero2": DistributedType.DEEPSPEED,
}


def test_every_configuration_is_known_here():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_it(name):
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert config.distributed_type == KINDS[name]
    assert config.mixed_precision == "bf16"
    assert config.num_processes % config.num_machines == 0


@pytest.mark.slow
def test_two_processes_on_a_cpu(tmp_path):
    """What DDP runs, but for the GPUs; `test_processes.py` compares the numbers."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os\nfrom accelerate import Accelerator\nos.write(1, b'world %d\\n' % Accelerator().num_processes)"
    )
    options = ["--num_processes", "2", "--mixed_precision", "no", "--main_process_port", "0"]
    done = subprocess.run(
        ["accelerate", "launch", "--config_file", str(FOLDER / "ddp.yaml"), *options, str(script)],
        env={**os.environ, "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    # Some versions of torch let Gloo write lines of its own.
    assert [line for line in done.stdout.splitlines() if "world" in line] == ["world 2"] * 2, done.stderr


def test_the_job_script_starts_each_machine_with_its_rank(tmp_path):
    """Run with stand-ins for the commands of a cluster, of which srun plays two machines."""
    stand_ins = {
        "scontrol": "seq -f node%.0f 7 30000",  # more than a pipe holds, so whoever reads less than all ends it
        "srun": 'for rank in 0 1; do SLURM_NODEID=$rank "$@"; done',
        "accelerate": 'echo "$@"',
    }
    for name, body in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2"}
    command = ["bash", str(FOLDER / "slurm.sh"), "my config.yaml", "--seed", "1"]
    lines = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == 2
    for rank, line in enumerate(lines):
        assert f"--num_machines 2 --num_processes 8 --machine_rank {rank} --main_process_ip node7 " in line
        assert line.endswith("recipes/finetune.py my config.yaml --seed 1")
