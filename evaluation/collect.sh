#!/usr/bin/env bash
# All tables and figures of a grid's results, from what evaluate_*.sh wrote; seconds to minutes.
#
#   bash evaluation/collect.sh                  results/grid (or $OUT) -> results/grid_summary
#   bash evaluation/collect.sh results/quick    results/quick -> results/quick_summary
#
# What cannot be made (a figure of the lambda sweep without a sweep) is listed at the end, with exit
# code 1; the rest is there.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
source evaluation/common.sh

root="${1:-${OUT:-results/grid}}"
root="${root%/}"
summary="${root}_summary"
python="${PYTHON:-$(default_python)}"
failed=()

# step NAME COMMAND...
step() {
  local name=$1
  shift
  "$@" || failed+=("$name")
}

folders=()
while IFS= read -r file; do folders+=("$(dirname "$file")"); done \
  < <(find "$root" -name metrics.csv | LC_ALL=C sort)
if [ "${#folders[@]}" = 0 ]; then
  echo "error: no results below $root; run evaluation/evaluate_*.sh first" >&2
  exit 1
fi
mkdir -p "$summary"
for table in markdown:md latex:tex csv:csv; do
  file="table.${table#*:}"
  step "$file" "$python" -m evaluation.tables --grid "$root" --format="${table%:*}" \
    > "$summary/$file"
done
for figure in boxplots depth lambda panels; do
  step "$figure" "$python" -m evaluation.figures "$figure" --grid "$root" --out="$summary"
done
step report.html "$python" -m evaluation.report "${folders[@]}" --out="$summary/report.html"
cat "$summary/table.md"
echo "tables, figures and report: $summary"
if [ "${#failed[@]}" -gt 0 ]; then
  echo "error: could not be made: ${failed[*]}" >&2
  exit 1
fi
