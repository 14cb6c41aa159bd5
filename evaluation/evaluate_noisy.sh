#!/usr/bin/env bash
# Noisy measurements of the embedded slices: white noise of 1, 3 and 5 % of the peak with one coil
# and with eight, and CT by photon counts; shipped priors, and baselines with several weights.
#
#   bash evaluation/evaluate_noisy.sh --quick      one slice of 128 pixels, three measurements
#   bash evaluation/evaluate_noisy.sh --dry-run    the commands; --count: how many cells
#   bash evaluation/evaluate_noisy.sh --plan       network calls, hours, an sbatch command that fits
#   bash evaluation/evaluate_noisy.sh              all cells in turn; hours on a CPU
#   sbatch evaluation/evaluate_noisy.sh            a task a cell, from the repository
#
# Needs no data and no training. Results: OUT. See docs/evaluation.md.
#SBATCH --job-name=noisy
#SBATCH --array=0-168%8
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=04:00:00
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
run_grid noisy "$@"
