#!/usr/bin/env bash
# The study's MRI reconstructions of 2026: 18 priors of nine sizes, three samplers,
# zero-filled, TV and U-Net on 3 data sets and 5 masks, 100 slices each of as many people as there
# are. 855 cells.
#
#   bash evaluation/evaluate_study2026_mri.sh --quick      embedded slices, a small prior: minutes
#   bash evaluation/evaluate_study2026_mri.sh --dry-run    the commands; --count: how many cells
#   bash evaluation/evaluate_study2026_mri.sh --plan       network calls, hours, an sbatch command that fits
#   bash evaluation/evaluate_study2026_mri.sh              all cells in turn; NPROC=4: each on 4 GPUs
#   OUT=results/study2026 bash evaluation/evaluate_study2026_mri.sh --config.protocol=study2026
#   sbatch evaluation/evaluate_study2026_mri.sh            a task a cell, from the repository
#
# Data: KNEE, BRAIN. Priors: RUNS. Results: OUT. See docs/evaluation.md.
#SBATCH --job-name=study2026_mri
#SBATCH --array=0-854%8
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
run_grid study2026_mri "$@"
