#!/usr/bin/env bash
# All that a card is good for, in order of value, in under 12 minutes, on a machine that has one:
#
#   benchmarks/gpu/card.sh [--wheels FOLDER] [--out FOLDER] [--scratch FOLDER] [--budget SECONDS] [--dry-run] [STEP ...]
#
# --wheels   wheels of what the machine lacks, carried along: installed beside what it has, without a network
# --out      where card.jsonl goes, one line per step [default: benchmarks/results]
# --scratch  files that may be thrown away [default: card-scratch in the temporary folder]
# --budget   no step begins that would not end within so many seconds [default: 690]
# --dry-run  every step, tiny, on the CPU: shows that it works; its numbers mean nothing and go to the scratch folder
#
# A step that has its line is skipped, so that the same command goes on where an earlier one ended.
set -euo pipefail

here=$(cd "$(dirname "$0")/../.." && pwd)
wheels='' scratch=${TMPDIR:-/tmp}/card-scratch
rest=()
while [ $# -gt 0 ]; do
  case $1 in
    --wheels) wheels=$2; shift 2 ;;
    --scratch) scratch=$2; shift 2 ;;
    *) rest+=("$1"); shift ;;
  esac
done
mkdir -p "$scratch"
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"

if [ -n "$wheels" ]; then
  missing=$(python3 - "$wheels" <<'PYTHON'
import importlib.metadata, pathlib, sys
for wheel in sorted(pathlib.Path(sys.argv[1]).glob("*.whl")):
    try:
        importlib.metadata.version(wheel.name.split("-")[0].replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        print(wheel)
PYTHON
)
  if [ -n "$missing" ]; then
    # shellcheck disable=SC2086  # one argument per wheel
    python3 -m pip install --quiet --no-index --no-deps --find-links "$wheels" --target "$scratch/site" --upgrade $missing
  fi
  export PYTHONPATH="$PYTHONPATH:$scratch/site"
fi
exec python3 "$here/benchmarks/gpu/card.py" --scratch "$scratch" "${rest[@]}"
