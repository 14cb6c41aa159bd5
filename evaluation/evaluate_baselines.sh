#!/usr/bin/env bash
# Reconstructions without a score-based prior on every data set and measurement of the study:
# zero-filled or filtered back-projection, total variation, wavelets, U-Net. 78 cells.
#
#   bash evaluation/evaluate_baselines.sh --quick      embedded slices
#   bash evaluation/evaluate_baselines.sh --dry-run    the commands; --count: how many cells
#   bash evaluation/evaluate_baselines.sh --plan       network calls, hours, an sbatch command that fits
#   bash evaluation/evaluate_baselines.sh              all cells in turn; NPROC=4: each on 4 GPUs
#   sbatch evaluation/evaluate_baselines.sh            a task a cell, from the repository
#
# Data: KNEE, BRAIN, CT, HEAD. Priors: RUNS. Results: OUT. See docs/evaluation.md.
#SBATCH --job-name=baselines
#SBATCH --array=0-77%8
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
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
run_grid baselines "$@"
