#!/usr/bin/env bash
# The CT priors of the study: LoDoPaB-CT. See configs/ct.py.
#
#   bash training_scripts/train_ct.sh 1          one size on this machine, without SLURM
#   bash training_scripts/train_ct.sh 1 2 3      some, one after the other; none: all five
#   sbatch training_scripts/train_ct.sh          all five as an array, from the repository
#   sbatch --array=4 training_scripts/train_ct.sh        the fifth, 4_attention
#
# --plan prints the hours and a command with a time limit that fits.
# What starts with -- goes to train.py (--config.training.num_steps=1000). Variables: see common.sh.
# An interrupted run, whatever the reason, goes on with the same command; docs/cluster.md.
#SBATCH --job-name=ct
#SBATCH --array=0-4%4
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=logs/%x_%A_%a.out
set -euo pipefail
# SLURM runs a copy of this file from elsewhere; then the repository is where sbatch was called
REPOSITORY="${REPOSITORY:-$(cd "$(dirname "$0")/.." && pwd)}"
[ -f "$REPOSITORY/train.py" ] || REPOSITORY="${SLURM_SUBMIT_DIR:-.}"
cd "$REPOSITORY"
source training_scripts/common.sh
train_sizes ct "$@"
