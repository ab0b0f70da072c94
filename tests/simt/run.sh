#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Executes every CUDA kernel on the CPU: tests/simt/run.sh [plain|asan|race|ucontext]. See README.md.
set -eu
mode=${1:-plain}
here=$(cd "$(dirname "$0")" && pwd)
out=${BUILD:-$here/../../build/simt}/$mode
make -s -j2 -C "$here" MODE="$mode" test_emulator test_kernels test_selection
"$out/test_emulator"
case $mode in
  plain) "$out/test_kernels" 2 && "$out/test_selection" 4 ;;
  asan) "$out/test_kernels" 1 none empty small large && "$out/test_selection" 2 ;;
  race)
    make -s -C "$here" MODE=race test_races
    "$out/test_races" && "$out/test_kernels" 1 few && "$out/test_selection" 1
    ;;
  ucontext) "$out/test_kernels" 1 small && "$out/test_selection" 1 small hard ;;
esac
