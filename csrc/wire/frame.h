// SPDX-License-Identifier: Apache-2.0
// Whole frames. Encoders write into the caller's buffer; the decoder writes into the caller's scratch, which
// is garbage after an error, so that nothing may be applied before decode has returned ok.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "wire/bytes.h"
#include "wire/gather.h"
#include "wire/header.h"
#include "wire/pool.h"
#include "wire/status.h"

namespace dgs::wire {

enum class BodyForm : std::uint8_t { kDense = 0, kSparse = 1, kOpaque = 255 };

struct Decoded {
  Header header;
  BodyForm form = BodyForm::kOpaque;
  ConstBytes meta;  // inside the frame
  ConstBytes body;
};

// Bytes that always suffice for a frame of up to `entries` values out of `numel`, or for an opaque body of
// `entries` bytes.
std::uint64_t frame_capacity(std::uint64_t entries, Codec codec, std::uint64_t numel, std::uint64_t segments,
                             std::uint64_t meta_bytes);

// The encoders fill in header.count, the lengths and the checksum, and set *length to the frame's length.
// Zeros are left out, and the dense form is taken where it is smaller.
Status encode_sparse(Header header, ConstBytes meta, const Entries& entries, std::uint64_t numel,
                     Scratch* scratch, Bytes out, std::size_t* length, Pool* pool);
Status encode_dense(Header header, ConstBytes meta, std::span<const float> values, Bytes out,
                    std::size_t* length, Pool* pool);
Status encode_bytes(Header header, ConstBytes meta, ConstBytes body, Bytes out, std::size_t* length);

// `frame` is exactly one frame of a vector of `numel` elements. A sparse body fills the first header.count of
// `indices` and `values`, a dense one the first numel of `values`; an opaque one is left where it is.
Status decode(ConstBytes frame, std::uint64_t numel, std::optional<std::uint64_t> fingerprint,
              std::span<std::int64_t> indices, std::span<float> values, Decoded* decoded, Pool* pool);

}  // namespace dgs::wire
