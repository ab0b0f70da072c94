// SPDX-License-Identifier: Apache-2.0
// The streams of a rice block two gaps at a time, where the processor has vectors for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "wire/bit_stream.h"

namespace dgs::wire {

// Gaps less one that are worked on at a time: they stay in the first-level cache.
inline constexpr std::size_t kGapsAtATime = 256;

// Appends the first of at most kGapsAtATime gaps to both streams, and returns how many: a multiple of four,
// or none where a quotient is too large. Only where vectors_here(). The bits are those that one gap after the
// other would give.
std::size_t write_pairs(std::span<const std::uint32_t> gaps, unsigned rice, BitWriter* low,
                        UnaryWriter* unary);

}  // namespace dgs::wire
