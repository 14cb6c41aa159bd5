#!/usr/bin/env bash
# All tables and figures of a grid's results, from what evaluate_*.sh wrote.
#
#   bash evaluation/collect.sh                  results/grid (or $OUT) -> results/grid_summary
#   bash evaluation/collect.sh results/quick    results/quick -> results/quick_summary
#
# table.{md,tex,csv}; figures as PNG and PDF over all data; and in DATA/MEASUREMENT/ a slice's
# reconstructions side by side and report.html (large ones with report_files). What cannot be made
# is listed at the end, with exit code 1; the rest is there.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
source evaluation/common.sh

case "${1:-}" in
  -h | --help) usage; exit ;;
esac
root="${1:-}"
from_the_caller root
root="${root:-${OUT:-results/grid}}"
root="${root%/}"
summary="${root}_summary"
python="${PYTHON:-$(default_python)}"
failed=()

# step NAME MODULE ARGUMENT...
step() {
  local name=$1
  shift
  echo "== $name" >&2
  "$python" -m "$@" || failed+=("$name")
}

# find_results PATTERN FILE: into $found the results folders DATA/MEASUREMENT/METHOD with this file
find_results() {
  local file
  found=()
  for file in "$root"/$1/"$2"; do
    [ ! -f "$file" ] || found+=("$(dirname "$file")")
  done
}

find_results '*/*/*' metrics.csv
if [ "${#found[@]}" = 0 ]; then
  echo "error: no results below $root; run evaluation/evaluate_*.sh first" >&2
  exit 1
fi
mkdir -p "$summary"
for table in markdown:md latex:tex csv:csv; do
  file="table.${table#*:}"
  step "$file" evaluation.tables --grid "$root" --format="${table%:*}" > "$summary/$file"
done
step boxplots evaluation.figures boxplots "$root" --out="$summary"
step depth evaluation.figures depth "$root" --out="$summary"
find_results '*/*/*_lambda_*' metrics.csv
if [ "${#found[@]}" -gt 0 ]; then
  step lambda evaluation.figures lambda "$root" --out="$summary"
fi
for group in "$root"/*/*/; do
  group="${group#"$root"/}"
  group="${group%/}"
  find_results "$group/*" recon.h5 # written when a cell is finished
  [ "${#found[@]}" -gt 0 ] || continue
  step "$group/panels" evaluation.figures panels "${found[@]}" --out="$summary/$group"
  step "$group/report.html" evaluation.report "${found[@]}" --out="$summary/$group/report.html"
done

cat "$summary/table.md"
echo "tables, figures and reports: $summary"
if [ "${#failed[@]}" -gt 0 ]; then
  echo "error: could not be made: ${failed[*]}" >&2
  exit 1
fi
