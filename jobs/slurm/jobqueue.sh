#!/usr/bin/env bash
# galbatch with dask-jobqueue: this script stays on a login or service node, holds the scheduler, and asks SLURM for
# worker jobs; galbatch joins it by address. Use it where many small jobs start sooner than one large allocation.
#
#   pip install dask-jobqueue
#   jobs/slurm/jobqueue.sh survey.parquet [options of galbatch process]
#
# Settings by environment: GALBATCH_JOBS (worker jobs), GALBATCH_PARTITION, GALBATCH_ACCOUNT, GALBATCH_WALLTIME,
# GALBATCH_GPUS (GPUs a job, 0 for CPU workers).
set -euo pipefail

catalog=${1:?usage: jobs/slurm/jobqueue.sh CATALOG [options of galbatch process]}
shift
here=$(cd "$(dirname "$0")" && pwd)
file=$(mktemp -u "${GALBATCH_SHARED:-$PWD}/dask-scheduler-XXXXXX.json")

# The cluster lives in its own process; it writes the scheduler file when the scheduler is up and ends on SIGTERM.
python "$here/jobqueue_cluster.py" "$file" &
cluster=$!
cleanup() {
  kill -TERM "$cluster" 2>/dev/null || true
  wait "$cluster" 2>/dev/null || true
  rm -f "$file"
}
trap cleanup EXIT

for _ in $(seq 120); do
  [ -s "$file" ] && break
  kill -0 "$cluster" 2>/dev/null || { echo "the cluster did not start" >&2; exit 1; }
  sleep 1
done

# --workers 1: begin as soon as the first job runs; the others join as SLURM starts them.
galbatch process "$catalog" --scheduler-file "$file" --workers 1 --resume --json "$@"
