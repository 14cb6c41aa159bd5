#!/usr/bin/env bash
# The study's CT reconstructions of 2026: 18 priors of nine sizes, three samplers,
# FBP, TV and U-Net on 2 data sets, 60, 30 and 20 parallel views and 60 of a fan beam, 100 slices
# each of as many people as there are. 456 cells.
#
#   bash evaluation/evaluate_study2026_ct.sh --quick      embedded slices, a small prior: minutes
#   bash evaluation/evaluate_study2026_ct.sh --dry-run    the commands; --count: how many cells
#   bash evaluation/evaluate_study2026_ct.sh --plan       network calls, hours, an sbatch command that fits
#   bash evaluation/evaluate_study2026_ct.sh              all cells in turn; NPROC=4: each on 4 GPUs
#   OUT=results/study2026 bash evaluation/evaluate_study2026_ct.sh --config.protocol=study2026
#   sbatch evaluation/evaluate_study2026_ct.sh            a task a cell, from the repository
#
# Data: CT, HEAD. Priors: RUNS. Results: OUT. See docs/evaluation.md.
#SBATCH --job-name=study2026_ct
#SBATCH --array=0-455%8
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=09:30:00
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
run_grid study2026_ct "$@"
