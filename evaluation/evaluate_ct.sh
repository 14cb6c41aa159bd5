#!/usr/bin/env bash
# The study's CT reconstructions by predictor-corrector from a warm start (level 300 of 1000): 10
# priors, 2 data sets, 3 geometries. 60 cells of 128 slices, 600 network calls a slice.
#
#   bash evaluation/evaluate_ct.sh --quick      embedded slices, a small prior: minutes
#   bash evaluation/evaluate_ct.sh --dry-run    the commands; --count: how many cells
#   bash evaluation/evaluate_ct.sh --plan       network calls, hours, an sbatch command that fits
#   bash evaluation/evaluate_ct.sh              all cells in turn; NPROC=4: each on 4 GPUs
#   sbatch evaluation/evaluate_ct.sh            a task a cell, from the repository
#
# Data: CT, HEAD. Priors: RUNS. Results: OUT. See docs/evaluation.md.
#SBATCH --job-name=ct
#SBATCH --array=0-59%8
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=01:30:00
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
run_grid ct "$@"
