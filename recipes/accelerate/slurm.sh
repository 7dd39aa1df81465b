#!/bin/bash
# sbatch recipes/accelerate/slurm.sh CONFIG.yaml [--option value ...]      two machines of four GPUs; untested on hardware
#SBATCH --job-name=advbn
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00

set -euo pipefail

gpus_per_node=4
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
main_address=${hosts%%$'\n'*}

# SLURM_NODEID is each machine's own, so it is read there and not here.
srun bash -c 'exec accelerate launch --config_file recipes/accelerate/several_machines.yaml \
    --num_machines "$SLURM_NNODES" --num_processes "$1" --machine_rank "$SLURM_NODEID" --main_process_ip "$2" \
    recipes/finetune.py "${@:3}"' _ "$((SLURM_NNODES * gpus_per_node))" "$main_address" "$@"
