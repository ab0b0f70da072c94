// SPDX-License-Identifier: Apache-2.0
// libFuzzer's entry: bytes as they are, and with checksums that agree with them. Seeds: tests/wire/golden.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "receiver.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<std::uint8_t> frame(data, data + size);
  fuzz::receive(frame, 1000);
  fuzz::reseal(frame);
  for (const std::uint64_t numel : {std::uint64_t{1000}, std::uint64_t{70'000}}) fuzz::receive(frame, numel);
  return 0;
}
