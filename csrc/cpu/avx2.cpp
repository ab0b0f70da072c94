// SPDX-License-Identifier: Apache-2.0
// The loops for AVX2 and F16C; called only where the processor has both.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "common/segments.h"

// From here on functions may use AVX2. Those of common/formulas.h are always inlined, so that none of them is
// left for the linker to take for the portable one.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,f16c")
#endif

#define DGS_VARIANT avx2
#define DGS_VECTOR "cpu/vector_avx2.h"
#include "cpu/dense_body.h"
#include "cpu/loops_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace dgs::cpu {

const Loops kAvx2{"avx2",      avx2::sweep,    avx2::sample,          avx2::keep, avx2::within,
                  avx2::scale, avx2::quantize, avx2::quantize_blocks, avx2::add,  avx2::largest_difference};

}  // namespace dgs::cpu
#endif
