#!/usr/bin/env bash
# Everything that RESULTS.md says about a GPU, in one command on a machine that has one:
#
#   benchmarks/gpu.sh [results folder]
#
# 1. kernels, roofline, draws a second (bfloat16 inside the network, every backend);
# 2. calibration of the default mode with the network in bfloat16 and in float32, on the same mocks;
# 3. a run of 2,016 sources end to end, how busy the device was, and the run's cost table;
# 4. where the time of a draw goes (torch profiler).
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-gpu-results}
mkdir -p "$out"
measured() { "$@" || [ $? -eq 3 ]; }  # exit code 3: all was measured, and a target was missed

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv | tee "$out/device.csv"

measured galbatch bench --device cuda --seconds 2 --json | tee "$out/kernels.jsonl"

for precision in bfloat16 float32; do
  measured galbatch validate --precision $precision --out "$out/validation-$precision"
done

python - "$here/catalogs/demo.parquet" "$out/many.parquet" <<'PYTHON'
import sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
table = pq.read_table(sys.argv[1])
rows = pa.concat_tables([table] * 42)  # the demo's 48 sources under 2,016 ids: other draws, the same work
ids = pa.array(np.arange(rows.num_rows) + 1)
pq.write_table(rows.set_column(rows.column_names.index("source_id"), "source_id", ids), sys.argv[2])
PYTHON
nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv,noheader,nounits -lms 500 > "$out/busy.csv" &
watch=$!
trap 'kill $watch 2>/dev/null || true' EXIT
measured galbatch process "$out/many.parquet" --survey "$here/catalogs/demo.toml" --cluster cuda --batch 64 --overwrite \
  --out "$out/many.run"
kill $watch
awk -F, '{busy += ($1 > 0); use += $1; n++} END {if (n) printf "device at work in %.0f%% of the samples, mean use %.0f%%\n", 100 * busy / n, use / n}' "$out/busy.csv" | tee "$out/busy.txt"
galbatch plan "$out/many.parquet" --survey "$here/catalogs/demo.toml" --on "$out/many.run" --sources 1000000 | tee "$out/cost.txt"

python "$here/benchmarks/throughput/profile_draw.py" --device cuda | tee "$out/profile.txt"
