#!/usr/bin/env bash
# The harness calls `build_task.sh SUBMISSION` before every run and then starts
# SUBMISSION/build/STAGE. All stages are one program, built by `cargo xtask hebench`, which names it
# in CIPHERLM_STAGES and the list of its stages in CIPHERLM_STAGE_NAMES; it goes by the name it is
# started under.
set -euo pipefail
: "${CIPHERLM_STAGES:?start the harness by cargo xtask hebench}"
: "${CIPHERLM_STAGE_NAMES:?start the harness by cargo xtask hebench}"
mkdir -p "$1/build"
for stage in $CIPHERLM_STAGE_NAMES; do
    ln -sfn "$CIPHERLM_STAGES" "$1/build/$stage"
done
