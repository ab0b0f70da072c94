// SPDX-License-Identifier: Apache-2.0
// The packer for Python. Arrays are used in place (dtype, contiguity and writability are checked, nothing is
// converted), the GIL is released while bytes are worked on, and a Status becomes a FrameError or a
// ValueError.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "cpu/torch_pool.h"
#include "wire/block_values.h"
#include "wire/frame.h"
#include "wire/xxh64.h"

namespace py = pybind11;

namespace dgs::wire {
namespace {

template <class T>
std::span<T> view(const py::array& array, const char* name) {
  using Element = std::remove_const_t<T>;
  if (!py::isinstance<py::array_t<Element>>(array) || array.ndim() != 1 ||
      (array.flags() & py::array::c_style) == 0) {
    throw py::type_error(std::string("wire: ") + name +
                         " must be a contiguous vector of the documented dtype");
  }
  if constexpr (std::is_const_v<T>) {
    return {static_cast<T*>(array.data()), static_cast<std::size_t>(array.size())};
  } else {
    if (!array.writeable()) throw py::value_error(std::string("wire: ") + name + " must be writable");
    return {static_cast<T*>(const_cast<void*>(array.data())), static_cast<std::size_t>(array.size())};
  }
}

ConstBytes view(const py::bytes& bytes) {
  const auto text = static_cast<std::string_view>(bytes);
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

void raise_if(const Status& status) {
  if (status.ok()) return;
  const std::string message =
      std::string(status.field) + ": " + status.detail + " (got " + std::to_string(status.value) + ")";
  if (status.code == Code::kArgument) throw py::value_error("wire: " + message);
  const py::object error = py::module_::import("dgs_ext.errors").attr("FrameError");
  const py::object raised = error(message, py::arg("code") = code_name(status.code),
                                  py::arg("field") = status.field, py::arg("value") = status.value);
  PyErr_SetObject(error.ptr(), raised.ptr());
  throw py::error_already_set();
}

// (kind, codec, flags, worker, fingerprint, sequence, version): the fields that the caller chooses.
using Chosen = std::tuple<std::uint8_t, std::uint8_t, std::uint8_t, std::uint16_t, std::uint64_t,
                          std::uint64_t, std::uint64_t>;

Header header_of(const Chosen& chosen) {
  Header header;
  std::uint8_t codec = 0;
  std::tie(header.kind, codec, header.flags, header.worker, header.fingerprint, header.sequence,
           header.version) = chosen;
  header.codec = static_cast<Codec>(codec);
  return header;
}

py::tuple fields_of(const Header& header) {
  return py::make_tuple(header.kind, static_cast<std::uint8_t>(header.codec), header.flags, header.worker,
                        header.fingerprint, header.sequence, header.version, header.count,
                        header.payload_length, header.meta_length);
}

// torch's threads, which the ops before and behind a message have just used: those of a pool of our own would
// find the cores taken by them, as they wait for work without sleeping. A thread for so many entries that it
// works for a quarter of a millisecond: a team that ends together waits for the one whose core another
// process has, which can take longer than what most messages cost altogether.
class TorchThreads final : public Pool {
 public:
  explicit TorchThreads(std::size_t entries) : pool_(static_cast<std::int64_t>(entries / 4)) {}
  void each(std::size_t tasks, Task task) override {
    pool_(static_cast<std::int64_t>(tasks), [&](std::int64_t i) { task(static_cast<std::size_t>(i)); });
  }

 private:
  cpu::TorchPool pool_;
};

std::size_t py_encode_sparse(const py::array& out, const Chosen& chosen, const py::bytes& meta,
                             const py::array& indices, const py::array& values, const py::array& starts,
                             const py::array& nnz, std::uint64_t numel) {
  // One per sending thread, so that a session in steady state allocates nothing.
  thread_local Scratch scratch;
  const Bytes to = view<std::uint8_t>(out, "out");
  const ConstBytes text = view(meta);
  const Entries entries{view<const std::int64_t>(indices, "indices"), view<const float>(values, "values"),
                        view<const std::int64_t>(starts, "starts"), view<const std::int64_t>(nnz, "nnz")};
  std::size_t length = 0;
  Status status;
  {
    const py::gil_scoped_release released;
    TorchThreads pool(entries.indices.size());
    status = encode_sparse(header_of(chosen), text, entries, numel, &scratch, to, &length, &pool);
  }
  raise_if(status);
  return length;
}

std::size_t py_encode_dense(const py::array& out, const Chosen& chosen, const py::bytes& meta,
                            const py::array& values) {
  const Bytes to = view<std::uint8_t>(out, "out");
  const ConstBytes text = view(meta);
  const auto from = view<const float>(values, "values");
  std::size_t length = 0;
  Status status;
  {
    const py::gil_scoped_release released;
    TorchThreads pool(from.size());
    status = encode_dense(header_of(chosen), text, from, to, &length, &pool);
  }
  raise_if(status);
  return length;
}

std::size_t py_encode_bytes(const py::array& out, const Chosen& chosen, const py::bytes& meta,
                            const py::array& body) {
  const Bytes to = view<std::uint8_t>(out, "out");
  const ConstBytes text = view(meta);
  const ConstBytes from = view<const std::uint8_t>(body, "body");
  std::size_t length = 0;
  Status status;
  {
    const py::gil_scoped_release released;
    status = encode_bytes(header_of(chosen), text, from, to, &length);
  }
  raise_if(status);
  return length;
}

py::tuple py_parse_header(const py::array& frame, std::optional<std::uint64_t> cap) {
  Header header;
  raise_if(read_header(view<const std::uint8_t>(frame, "frame"), &header));
  if (cap && header.payload_length > *cap) {
    raise_if(fail(Code::kTooLarge, "payload_length", header.payload_length,
                  "the payload is over the agreed cap of " + std::to_string(*cap) + " bytes"));
  }
  return fields_of(header);
}

py::tuple py_decode(const py::array& frame, std::uint64_t numel, std::optional<std::uint64_t> fingerprint,
                    const py::array& indices, const py::array& values) {
  const ConstBytes from = view<const std::uint8_t>(frame, "frame");
  const auto to_indices = view<std::int64_t>(indices, "indices");
  const auto to_values = view<float>(values, "values");
  Decoded decoded;
  Status status;
  {
    const py::gil_scoped_release released;
    Header header;
    TorchThreads pool(read_header(from, &header).ok() ? std::min(header.count, numel) : 0);
    status = decode(from, numel, fingerprint, to_indices, to_values, &decoded, &pool);
  }
  raise_if(status);
  return py::make_tuple(fields_of(decoded.header), static_cast<std::uint8_t>(decoded.form));
}

std::uint64_t py_xxh64(const py::array& bytes, std::uint64_t seed) {
  const ConstBytes from = view<const std::uint8_t>(bytes, "bytes");
  const py::gil_scoped_release released;
  return xxh64(from, seed);
}

}  // namespace
}  // namespace dgs::wire

PYBIND11_MODULE(_wire, module) {
  using namespace dgs::wire;
  module.doc() = "The message packer; dgs_ext.wire is its typed face.";
  module.attr("HEADER_BYTES") = kHeaderBytes;
  module.attr("VERSION") = kVersion;
  module.attr("MAX_NUMEL") = kMaxNumel;
  module.attr("VALUE_BLOCK") = kValueBlock;
  module.def("frame_capacity", [](std::uint64_t entries, std::uint8_t codec, std::uint64_t numel,
                                  std::uint64_t segments, std::uint64_t meta_bytes) {
    return frame_capacity(entries, static_cast<Codec>(codec), numel, segments, meta_bytes);
  });
  module.def("encode_sparse", &py_encode_sparse);
  module.def("encode_dense", &py_encode_dense);
  module.def("encode_bytes", &py_encode_bytes);
  module.def("parse_header", &py_parse_header);
  module.def("decode", &py_decode);
  module.def("xxh64", &py_xxh64);
  module.def("xxh64_bytes",
             [](const py::bytes& text, std::uint64_t seed) { return xxh64(view(text), seed); });
}
