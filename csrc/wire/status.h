// SPDX-License-Identifier: Apache-2.0
// What every function of the packer returns: an error is a value, never an exception.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace dgs::wire {

enum class Code : std::uint8_t {
  kOk,
  kArgument,  // the caller's own arguments contradict each other; never caused by a frame
  kCapacity,  // a caller's buffer is too small
  kTruncated,
  kTrailing,
  kBadMagic,
  kUnknownVersion,
  kHeaderCheck,
  kBadKind,
  kBadFlags,
  kBadCodec,
  kBadLength,
  kBadCount,
  kTooLarge,
  kLayoutMismatch,
  kChecksum,
  kBadForm,
  kBadDirectory,
  kNonCanonical,
  kBadIndex,
  kBadValue,
  kNotRepresentable,
};

// The stable name of a code, as docs/wire_format.md lists them.
constexpr const char* code_name(Code code) {
  switch (code) {
    case Code::kOk:
      return "ok";
    case Code::kArgument:
      return "argument";
    case Code::kCapacity:
      return "capacity";
    case Code::kTruncated:
      return "truncated";
    case Code::kTrailing:
      return "trailing";
    case Code::kBadMagic:
      return "bad_magic";
    case Code::kUnknownVersion:
      return "unknown_version";
    case Code::kHeaderCheck:
      return "header_check";
    case Code::kBadKind:
      return "bad_kind";
    case Code::kBadFlags:
      return "bad_flags";
    case Code::kBadCodec:
      return "bad_codec";
    case Code::kBadLength:
      return "bad_length";
    case Code::kBadCount:
      return "bad_count";
    case Code::kTooLarge:
      return "too_large";
    case Code::kLayoutMismatch:
      return "layout_mismatch";
    case Code::kChecksum:
      return "checksum";
    case Code::kBadForm:
      return "bad_form";
    case Code::kBadDirectory:
      return "bad_directory";
    case Code::kNonCanonical:
      return "non_canonical";
    case Code::kBadIndex:
      return "bad_index";
    case Code::kBadValue:
      return "bad_value";
    case Code::kNotRepresentable:
      return "not_representable";
  }
  return "unknown";
}

struct [[nodiscard]] Status {
  Code code = Code::kOk;
  const char* field = "";   // a string literal: the header or body field, or the argument
  std::uint64_t value = 0;  // what was found there
  std::string detail;       // the rule that was broken, in words

  bool ok() const { return code == Code::kOk; }
};

inline Status fail(Code code, const char* field, std::uint64_t value, std::string detail) {
  return Status{code, field, value, std::move(detail)};
}

}  // namespace dgs::wire

#define DGS_WIRE_TRY(expression)                                    \
  do {                                                              \
    if (auto status_ = (expression); !status_.ok()) return status_; \
  } while (false)
