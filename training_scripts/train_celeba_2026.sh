#!/usr/bin/env bash
# The natural-image priors of the study's 2026 edition: CelebA-HQ, grey.
# See configs/celeba_2026.py; docs/sizes.md has the sizes and what their training costs.
#
#   bash training_scripts/train_celeba_2026.sh 1_large        one size on this machine
#   bash training_scripts/train_celeba_2026.sh 1 structured   some, one after the other
#   sbatch --array=2 training_scripts/train_celeba_2026.sh    the third, 1_large, from the repository
#   sbatch training_scripts/train_celeba_2026.sh              all as an array
#
# Sizes: 1_small 1 1_large 2 3 4 4_small 4_attention 1_attention mrncsn msncsn structured; the last
# three are networks of four depths each.
#
# --plan prints the hours and a command with a time limit that fits.
# What starts with -- goes to train.py (--config.training.num_steps=1000). Variables: see common.sh.
# An interrupted run, whatever the reason, goes on with the same command; docs/cluster.md.
#SBATCH --job-name=celeba_2026
#SBATCH --array=0-11%4
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
SIZES=(1_small 1 1_large 2 3 4 4_small 4_attention 1_attention mrncsn msncsn structured)
train_sizes celeba_2026 "$@"
