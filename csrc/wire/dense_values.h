// SPDX-License-Identifier: Apache-2.0
// The values of a dense body, packed piece by piece in the pool.
#pragma once

#include <cstdint>
#include <span>

#include "wire/bytes.h"
#include "wire/header.h"
#include "wire/pool.h"
#include "wire/status.h"

namespace dgs::wire {

// All of them, in order. `packed` has the bytes of the whole vector and is overwritten; an error names the
// place in `values`.
Status pack_whole(Codec codec, std::span<const float> values, Bytes packed, Pool* pool);

// values[i] at indices[i], and +0 everywhere else; indices increase.
Status pack_scattered(Codec codec, std::span<const std::uint64_t> indices, std::span<const float> values,
                      Bytes packed, Pool* pool);

}  // namespace dgs::wire
