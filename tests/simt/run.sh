#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Executes every CUDA kernel on the CPU: tests/simt/run.sh [plain|asan|tsan|ucontext]. See README.md.
set -eu
mode=${1:-plain}
here=$(cd "$(dirname "$0")" && pwd)
out=${BUILD:-$here/../../build/simt}/$mode
make -s -j2 -C "$here" MODE="$mode" test_emulator test_kernels
"$out/test_emulator"
case $mode in
  plain) "$out/test_kernels" 2 ;;
  asan) "$out/test_kernels" 1 none empty small large ;;
  tsan) TSAN_OPTIONS=halt_on_error=1 "$out/test_kernels" 1 none empty few ;;
  ucontext) "$out/test_kernels" 1 small ;;
esac
