// SPDX-License-Identifier: Apache-2.0
// What must hold for any bytes at all that a receiver is given; stops the process where it does not.
#pragma once

#include <cstddef>

#include "wire/bytes.h"

namespace fuzz {

// Makes lengths and checksums of `frame` agree with its bytes, so that damage gets past them.
void reseal(dgs::wire::Bytes frame);

// Decodes `frame` as one of a vector of `numel` elements, into buffers that lie between guards, on one thread
// and in reverse order; what is accepted is encoded and decoded again. Returns whether it was accepted.
bool receive(dgs::wire::ConstBytes frame, std::uint64_t numel);

// Into how many tasks that last frame's decoding fell, at each step of it at least; 0 if it came to none.
std::size_t tasks();

}  // namespace fuzz
