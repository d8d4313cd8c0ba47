#!/usr/bin/env bash
# Builds, tests and measures all that runs on a GPU, in one call of at most 8 minutes; writes one JSON.
#
#     benchmarks/gpu.sh [FOLDER] [PART...]      parts: parity ops steps sanitizer (all)
#
# Needs a GPU, nvcc, and a Python (PYTHON, or python3) with torch >= 2.11, triton >= 3.6, timm, and what imbdyn and its
# tests need. Leaves FOLDER/gpu_NAME.json (default: benchmarks/results) and the logs of the parts beside it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${1:-benchmarks/results}
mkdir -p "$folder"
python=${PYTHON:-python3}
"$python" setup.py -q build_ext --inplace > "$folder/build.log" 2>&1 || { tail -30 "$folder/build.log"; exit 1; }
export PYTHONPATH=$PWD:$PWD/tests:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export IMBDYN_UNVERIFIED=1  # what is run here is what has to be verified
exec "$python" benchmarks/gpu.py "$folder" "${@:2}"
