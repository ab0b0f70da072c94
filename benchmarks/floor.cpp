// SPDX-License-Identifier: Apache-2.0
// The memory floor of the ops: loops that touch the same arrays and do next to nothing with them. Compiled by
// floors.py for the machine at hand (-march=native) and run on torch's threads.
//
// Operands are addresses int64 [streams, S] of float32 segments and sizes int64 [S], so that a call costs
// nothing but its loop. Where a result is stored there are three ways, and the fastest is the floor: in place
// (the last streams are the first ones' memory), to other memory through the cache, which reads each line
// before it writes it, and past the cache.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <vector>
#ifdef __AVX__
#include <immintrin.h>
#endif

namespace {

using torch::stable::Tensor;

constexpr int64_t kPiece = 1 << 15;  // elements of one task
constexpr int64_t kBlock = 512;      // elements that stay in the first-level cache

struct Piece {
  int64_t segment, begin, n;
};

struct Streams {
  const int64_t* addresses;  // [streams, segments]
  const int64_t* sizes;      // [segments]
  int64_t segments;

  Streams(const Tensor& at, const Tensor& size)
      : addresses(at.const_data_ptr<int64_t>()),
        sizes(size.const_data_ptr<int64_t>()),
        segments(size.numel()) {}
  float* operator()(int64_t stream, const Piece& p) const {
    return reinterpret_cast<float*>(addresses[stream * segments + p.segment]) + p.begin;
  }
};

// Calls body(piece) for all pieces, each thread taking the next when it is done with one.
template <class Body>
void for_each_piece(const Streams& streams, const Body& body) {
  std::vector<Piece> pieces;
  for (int64_t s = 0; s < streams.segments; ++s) {
    for (int64_t begin = 0; begin < streams.sizes[s]; begin += kPiece) {
      pieces.push_back({s, begin, std::min(kPiece, streams.sizes[s] - begin)});
    }
  }
  const int64_t count = static_cast<int64_t>(pieces.size());
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), count);
  std::atomic<int64_t> next{0};
  const auto work = [&](int64_t, int64_t) {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(pieces[i]);
  };
  if (threads <= 1) return work(0, 1);
  torch::stable::parallel_for(0, threads, 1, work);
}

// n values to memory, past the cache where this machine can. source lies in the cache.
void stream_out(const float* source, float* target, int64_t n) {
  int64_t i = 0;
#ifdef __AVX__
  for (; i < n && reinterpret_cast<uintptr_t>(target + i) % 64 != 0; ++i) target[i] = source[i];
  for (; i + 16 <= n; i += 16) {
    _mm256_stream_ps(target + i, _mm256_loadu_ps(source + i));
    _mm256_stream_ps(target + i + 8, _mm256_loadu_ps(source + i + 8));
  }
#endif
  for (; i < n; ++i) target[i] = source[i];
}

void fence() {
#ifdef __AVX__
  _mm_sfence();
#endif
}

inline uint32_t bits(float x) { return std::bit_cast<uint32_t>(x); }

void velocity_block(const float* g, const float* w, const float* v, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = 0.5f * v[i] + (g[i] + w[i]);
}

void dgc_block(const float* g, const float* w, const float* u, const float* r, float* u_out, float* r_out,
               int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const float next = 0.5f * u[i] + (g[i] + w[i]);
    u_out[i] = next;
    r_out[i] = 0.5f * r[i] + next;
  }
}

void dense_block(const float* __restrict g, const float* __restrict w, float* __restrict q, int64_t n) {
  for (int64_t i = 0; i < n; ++i) q[i] = g[i] + w[i];
}

// x: what a selection reads.
int64_t read_all(const Tensor& addresses, const Tensor& sizes) {
  const Streams at(addresses, sizes);
  std::atomic<uint32_t> sum{0};
  for_each_piece(at, [&](const Piece& p) {
    const float* x = at(0, p);
    uint32_t mixed = 0;
    for (int64_t i = 0; i < p.n; ++i) mixed ^= bits(x[i]);
    sum ^= mixed;
  });
  return sum;
}

// g, w, v -> out, which may be v.
void velocity(const Tensor& addresses, const Tensor& sizes, bool streaming) {
  const Streams at(addresses, sizes);
  for_each_piece(at, [&](const Piece& p) {
    const float *g = at(0, p), *w = at(1, p), *v = at(2, p);
    float* out = at(3, p);
    if (!streaming) return velocity_block(g, w, v, out, p.n);
    float block[kBlock];
    for (int64_t i = 0; i < p.n; i += kBlock) {
      const int64_t n = std::min(kBlock, p.n - i);
      velocity_block(g + i, w + i, v + i, block, n);
      stream_out(block, out + i, n);
    }
    fence();
  });
}

// g, w, u, r -> u_out, r_out, which may be u and r.
void dgc(const Tensor& addresses, const Tensor& sizes, bool streaming) {
  const Streams at(addresses, sizes);
  for_each_piece(at, [&](const Piece& p) {
    const float *g = at(0, p), *w = at(1, p), *u = at(2, p), *r = at(3, p);
    float *u_out = at(4, p), *r_out = at(5, p);
    if (!streaming) return dgc_block(g, w, u, r, u_out, r_out, p.n);
    float u_block[kBlock], r_block[kBlock];
    for (int64_t i = 0; i < p.n; i += kBlock) {
      const int64_t n = std::min(kBlock, p.n - i);
      dgc_block(g + i, w + i, u + i, r + i, u_block, r_block, n);
      stream_out(u_block, u_out + i, n);
      stream_out(r_block, r_out + i, n);
    }
    fence();
  });
}

// g, w -> q
void dense(const Tensor& addresses, const Tensor& sizes, bool streaming) {
  const Streams at(addresses, sizes);
  for_each_piece(at, [&](const Piece& p) {
    const float *g = at(0, p), *w = at(1, p);
    float* q = at(2, p);
    if (!streaming) return dense_block(g, w, q, p.n);
    float block[kBlock];
    for (int64_t i = 0; i < p.n; i += kBlock) {
      const int64_t n = std::min(kBlock, p.n - i);
      dense_block(g + i, w + i, block, n);
      stream_out(block, q + i, n);
    }
    fence();
  });
}

// theta and the mirror are read; the mirror's lines at the sorted flat indices [k] become dirty while they
// are in the cache, which is as cheap as that can be. One segment. nudge: 0, which the compiler does not
// know.
int64_t pull(const Tensor& addresses, const Tensor& sizes, const Tensor& indices, double nudge) {
  const Streams at(addresses, sizes);
  const int64_t *first = indices.const_data_ptr<int64_t>(), *last = first + indices.numel();
  std::atomic<uint32_t> sum{0};
  for_each_piece(at, [&](const Piece& p) {
    const float* theta = at(0, p);
    float* mirror = at(1, p);
    const int64_t* next = std::lower_bound(first, last, p.begin);
    uint32_t mixed = 0;
    for (int64_t i = 0; i < p.n; i += kBlock) {
      const int64_t end = std::min(i + kBlock, p.n);
      for (int64_t j = i; j < end; ++j) mixed ^= bits(theta[j] - mirror[j]);
      for (; next < last && *next < p.begin + end; ++next) {
        mirror[*next - p.begin] += static_cast<float>(nudge);
      }
    }
    sum ^= mixed;
  });
  return sum;
}

}  // namespace

STABLE_TORCH_LIBRARY(dgs_floor, m) {
  m.def("read(Tensor addresses, Tensor sizes) -> int");
  m.def("velocity(Tensor addresses, Tensor sizes, bool streaming) -> ()");
  m.def("dgc(Tensor addresses, Tensor sizes, bool streaming) -> ()");
  m.def("dense(Tensor addresses, Tensor sizes, bool streaming) -> ()");
  m.def("pull(Tensor addresses, Tensor sizes, Tensor indices, float nudge) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(dgs_floor, CPU, m) {
  m.impl("read", TORCH_BOX(&read_all));
  m.impl("velocity", TORCH_BOX(&velocity));
  m.impl("dgc", TORCH_BOX(&dgc));
  m.impl("dense", TORCH_BOX(&dense));
  m.impl("pull", TORCH_BOX(&pull));
}
