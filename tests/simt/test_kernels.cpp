// SPDX-License-Identifier: Apache-2.0
// Every CUDA kernel and every host sequence of launches, executed in the emulator and compared bit for bit
// with the plain C++ of oracle.h, over shapes, values, chunk lengths and schedules. Runs under sanitizers
// (run.sh).
#include "applied.h"
#include "quantized.h"
#include "shapes.h"
#include "steps.h"

namespace {

void test_all(const Case& c) {
  test_select_difference(c);
  test_step_velocity(c);
  test_step_dgc(c, c.seed % 2 == 0);
  test_step_dense(c);
  test_apply(c);
  test_add(c, c.seed % 2 == 0);
  test_overflow(c);
  test_quantize(c);
  test_quantize_blocks(c);
}

}  // namespace

// Arguments: the number of schedules, then the names of the shapes (all of them if none is named); each shape
// is run with all values and densities.
int main(int argc, char** argv) {
  for_cases(Arguments(argc, argv), test_all);
  return report();
}
