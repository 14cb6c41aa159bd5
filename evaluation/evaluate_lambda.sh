#!/usr/bin/env bash
# The study's sweep of lambda, the relaxation of the data consistency: 16 values, 2 priors, 2 data
# sets. 64 cells of 500 slices, 1000 network calls a slice.
#
#   bash evaluation/evaluate_lambda.sh --quick      embedded slices, a small prior: minutes
#   bash evaluation/evaluate_lambda.sh --dry-run    the commands; --count: how many cells
#   bash evaluation/evaluate_lambda.sh --plan       network calls, hours, an sbatch command that fits
#   bash evaluation/evaluate_lambda.sh              all cells in turn; NPROC=4: each on 4 GPUs
#   sbatch evaluation/evaluate_lambda.sh            a task a cell, from the repository
#
# Data: KNEE. Priors: RUNS. Results: OUT. See docs/evaluation.md.
#SBATCH --job-name=lambda
#SBATCH --array=0-63%8
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=02:30:00
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
run_grid lambda "$@"
