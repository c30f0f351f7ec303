#!/usr/bin/env bash
# galbatch on a laptop or workstation: one process a core, the dashboard at http://127.0.0.1:8787.
#
#   jobs/laptop.sh catalogs/demo.parquet                 a new run (or, called again, the rest of it)
#   jobs/laptop.sh catalogs/demo.parquet --draws 32      further options go to `galbatch process`
#
# Ctrl-C stops the run; the same command goes on with it. Exit codes: 0 ok, 1 bad input, 3 finished with some
# sources failed, 4 stopped and resumable.
set -euo pipefail

catalog=${1:?usage: jobs/laptop.sh CATALOG [options of galbatch process]}
shift

# Preflight: files, WCS, units, PSF, ids, disk, model. Writes nothing; stops here when something is wrong.
galbatch check "$catalog"

# --resume starts a run when there is none, and goes on with one that was stopped. It refuses when inputs or
# settings changed since.
exec galbatch process "$catalog" --cluster auto --resume "$@"
