// SPDX-License-Identifier: Apache-2.0
// The loops for AVX-512; called only where the processor has its foundation, AVX2 and F16C.
#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
// g++ 12 says so of its own header's _mm512_undefined_*.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "common/segments.h"

// From here on functions may use AVX-512. Those of common/formulas.h are always inlined, so that none of them
// is left for the linker to take for the portable one.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx2,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx2,f16c")
#endif

#define DGS_VARIANT avx512
#define DGS_VECTOR "cpu/vector_avx512.h"
#include "cpu/dense_body.h"
#include "cpu/loops_body.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace dgs::cpu {

const Loops kAvx512{
    "avx512",      avx512::sweep,    avx512::sample,          avx512::keep, avx512::within,
    avx512::scale, avx512::quantize, avx512::quantize_blocks, avx512::add,  avx512::largest_difference};

}  // namespace dgs::cpu
#endif
