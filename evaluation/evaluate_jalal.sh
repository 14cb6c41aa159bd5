#!/usr/bin/env bash
# The study's MRI reconstructions by Jalal et al.'s annealed Langevin dynamics: as evaluate_mri.sh,
# 657 network calls a slice.
#
#   bash evaluation/evaluate_jalal.sh --quick      embedded slices, a small prior: minutes
#   bash evaluation/evaluate_jalal.sh --dry-run    the commands; --count: how many cells
#   bash evaluation/evaluate_jalal.sh --plan       network calls, hours, an sbatch command that fits
#   bash evaluation/evaluate_jalal.sh              all cells in turn; NPROC=4: each on 4 GPUs
#   sbatch evaluation/evaluate_jalal.sh            a task a cell, from the repository
#
# Data: KNEE, BRAIN. Priors: RUNS. Results: OUT. See docs/evaluation.md.
#SBATCH --job-name=jalal
#SBATCH --array=0-149%8
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=03:30:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=logs/%x_%A_%a.out
set -euo pipefail
# SLURM runs a copy of this file from elsewhere; then the repository is where sbatch was called
REPOSITORY="${REPOSITORY:-$(cd "$(dirname "$0")/.." && pwd)}"
[ -f "$REPOSITORY/evaluation/grid.py" ] || REPOSITORY="${SLURM_SUBMIT_DIR:-.}"
cd "$REPOSITORY"
source evaluation/common.sh
run_grid jalal "$@"
