// SPDX-License-Identifier: Apache-2.0
// The loops for any machine that the compiler's own flags allow.
#define DGS_VARIANT portable
#define DGS_VECTOR "cpu/vector_portable.h"
#include "cpu/dense_body.h"
#include "cpu/loops_body.h"

namespace dgs::cpu {

const Loops kPortable{"portable",         portable::sweep,
                      portable::sample,   portable::keep,
                      portable::within,   portable::scale,
                      portable::quantize, portable::quantize_blocks,
                      portable::add,      portable::largest_difference};

}  // namespace dgs::cpu
