#!/usr/bin/env bash
# galbatch on one machine with several GPUs: one process a GPU, each loads the model once.
#
#   jobs/single-node-multi-gpu.sh survey.parquet [options of galbatch process]
#   CUDA_VISIBLE_DEVICES=0,2 jobs/single-node-multi-gpu.sh survey.parquet       only these GPUs
#
# `pip install "galbatch[cuda]"` brings dask-cuda ("galbatch[cuda12]" for a PyTorch of CUDA 12); without it galbatch
# starts one pinned process per GPU by itself and says so in one line.
set -euo pipefail

catalog=${1:?usage: jobs/single-node-multi-gpu.sh CATALOG [options of galbatch process]}
shift

gpus=$(nvidia-smi --list-gpus | wc -l)
if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
  gpus=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c .)
fi
echo "GPUs: $gpus"

galbatch check "$catalog"

# 64 sources a batch keep a GPU busy for seconds, which hides Dask's milliseconds; one batch is one file of each array.
exec galbatch process "$catalog" --cluster cuda --workers "$gpus" --batch 64 --resume "$@"
