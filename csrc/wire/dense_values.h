// SPDX-License-Identifier: Apache-2.0
// The values of a dense body, packed piece by piece in the pool.
#pragma once

#include <cstdint>
#include <span>

#include "wire/bytes.h"
#include "wire/entries.h"
#include "wire/header.h"
#include "wire/pool.h"
#include "wire/status.h"

namespace dgs::wire {

// All of them, in order. `packed` has the bytes of the whole vector and is overwritten; an error names the
// place in `values`.
Status pack_whole(Codec codec, std::span<const float> values, Bytes packed, Pool* pool);

// The entries that are not zero where they belong, and +0 everywhere else. An error counts the entries before
// it.
Status pack_scattered(Codec codec, const Entries& entries, std::span<const Piece> pieces, Bytes packed,
                      Pool* pool);

}  // namespace dgs::wire
