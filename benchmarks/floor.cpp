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
#include <cstring>
#include <vector>
#ifdef __AVX__
#include <immintrin.h>
#endif

namespace {

using torch::stable::Tensor;

constexpr int64_t kPiece = 1 << 15;  // elements of one task
constexpr int64_t kBlock = 512;      // elements that stay in the first-level cache
constexpr int64_t kEarly = 192;      // entries from prefetching an element to its use

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

// A cache line of values. The compiler makes of it whatever registers this machine has.
using Line [[gnu::vector_size(64)]] = float;
constexpr int64_t kLine = sizeof(Line) / sizeof(float);

inline Line load(const float* from) {
  Line x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

inline bool on_a_line(const float* p) { return reinterpret_cast<uintptr_t>(p) % sizeof(Line) == 0; }

// A line to memory: through the cache, or past it, where this machine can and `to` is aligned.
template <bool kPast>
inline void store(float* to, Line x) {
#if defined(__AVX512F__)
  if (kPast) return _mm512_stream_ps(to, std::bit_cast<__m512>(x));
#elif defined(__AVX__)
  if (kPast) {
    __m256 half[2];
    std::memcpy(half, &x, sizeof x);
    _mm256_stream_ps(to, half[0]);
    return _mm256_stream_ps(to + kLine / 2, half[1]);
  }
#endif
  std::memcpy(to, &x, sizeof x);
}

void fence() {
#ifdef __AVX__
  _mm_sfence();
#endif
}

inline uint32_t bits(float x) { return std::bit_cast<uint32_t>(x); }

// out[i] = formula(in[i]...), a line at a time; `out` may be one of `in`.
template <bool kPast, class Formula, class... In>
void map(int64_t n, const Formula& formula, float* out, const In*... in) {
  int64_t i = 0;
  for (; kPast && i < n && !on_a_line(out + i); ++i) out[i] = formula(in[i]...);
  for (; i + kLine <= n; i += kLine) store<kPast>(out + i, formula(load(in + i)...));
  for (; i < n; ++i) out[i] = formula(in[i]...);
  if (kPast) fence();
}

// Both results of DGC at once.
template <bool kPast>
void dgc_piece(int64_t n, const float* g, const float* w, const float* u, const float* r, float* u_out,
               float* r_out) {
  const auto one = [&](int64_t i) {
    const float next = 0.5f * u[i] + (g[i] + w[i]);
    r_out[i] = 0.5f * r[i] + next;
    u_out[i] = next;
  };
  int64_t i = 0;
  for (; kPast && i < n && !on_a_line(u_out + i); ++i) one(i);
  const auto lines = [&]<bool kPastR>() {
    for (; i + kLine <= n; i += kLine) {
      const Line next = 0.5f * load(u + i) + (load(g + i) + load(w + i));
      store<kPastR>(r_out + i, 0.5f * load(r + i) + next);
      store<kPast>(u_out + i, next);
    }
  };
  if (kPast && on_a_line(r_out + i)) {
    lines.template operator()<kPast>();
  } else {
    lines.template operator()<false>();
  }
  for (; i < n; ++i) one(i);
  if (kPast) fence();
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
void velocity(const Tensor& addresses, const Tensor& sizes, bool past) {
  const Streams at(addresses, sizes);
  const auto formula = [](auto g, auto w, auto v) { return 0.5f * v + (g + w); };
  for_each_piece(at, [&](const Piece& p) {
    const float *g = at(0, p), *w = at(1, p), *v = at(2, p);
    past ? map<true>(p.n, formula, at(3, p), g, w, v) : map<false>(p.n, formula, at(3, p), g, w, v);
  });
}

// g, w, u, r -> u_out, r_out, which may be u and r.
void dgc(const Tensor& addresses, const Tensor& sizes, bool past) {
  const Streams at(addresses, sizes);
  for_each_piece(at, [&](const Piece& p) {
    (past ? dgc_piece<true> : dgc_piece<false>)(p.n, at(0, p), at(1, p), at(2, p), at(3, p), at(4, p),
                                                at(5, p));
  });
}

// g, w -> q
void dense(const Tensor& addresses, const Tensor& sizes, bool past) {
  const Streams at(addresses, sizes);
  const auto formula = [](auto g, auto w) { return g + w; };
  for_each_piece(at, [&](const Piece& p) {
    const float *g = at(0, p), *w = at(1, p);
    past ? map<true>(p.n, formula, at(2, p), g, w) : map<false>(p.n, formula, at(2, p), g, w);
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

// At each of the sorted flat indices [k] a value [k] is added to both vectors (which may be one), each thread
// a run of neighbours. One segment.
void scatter(const Tensor& addresses, const Tensor& indices, const Tensor& values) {
  const int64_t* at = addresses.const_data_ptr<int64_t>();
  float *x = reinterpret_cast<float*>(at[0]), *y = reinterpret_cast<float*>(at[1]);
  const auto* index = indices.const_data_ptr<int64_t>();
  const auto* value = values.const_data_ptr<float>();
  torch::stable::parallel_for(0, indices.numel(), kPiece, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t later = index[std::min(i + kEarly, end - 1)];
      __builtin_prefetch(x + later, 1);
      __builtin_prefetch(y + later, 1);
      x[index[i]] += value[i];
      if (y != x) y[index[i]] += value[i];
    }
  });
}

// The entries of x at the sorted flat indices [k], and as many values [k], are read. One segment.
int64_t gather(const Tensor& addresses, const Tensor& indices, const Tensor& values) {
  const auto* x = reinterpret_cast<const float*>(addresses.const_data_ptr<int64_t>()[0]);
  const auto* index = indices.const_data_ptr<int64_t>();
  const auto* value = values.const_data_ptr<float>();
  std::atomic<uint32_t> sum{0};
  torch::stable::parallel_for(0, indices.numel(), kPiece, [&](int64_t begin, int64_t end) {
    uint32_t mixed = 0;
    for (int64_t i = begin; i < end; ++i) {
      __builtin_prefetch(x + index[std::min(i + kEarly, end - 1)]);
      mixed ^= bits(x[index[i]] - value[i]);
    }
    sum ^= mixed;
  });
  return sum;
}

}  // namespace

STABLE_TORCH_LIBRARY(dgs_floor, m) {
  m.def("read(Tensor addresses, Tensor sizes) -> int");
  m.def("velocity(Tensor addresses, Tensor sizes, bool past) -> ()");
  m.def("dgc(Tensor addresses, Tensor sizes, bool past) -> ()");
  m.def("dense(Tensor addresses, Tensor sizes, bool past) -> ()");
  m.def("scatter(Tensor addresses, Tensor indices, Tensor values) -> ()");
  m.def("gather(Tensor addresses, Tensor indices, Tensor values) -> int");
  m.def("pull(Tensor addresses, Tensor sizes, Tensor indices, float nudge) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(dgs_floor, CPU, m) {
  m.impl("read", TORCH_BOX(&read_all));
  m.impl("velocity", TORCH_BOX(&velocity));
  m.impl("dgc", TORCH_BOX(&dgc));
  m.impl("dense", TORCH_BOX(&dense));
  m.impl("scatter", TORCH_BOX(&scatter));
  m.impl("gather", TORCH_BOX(&gather));
  m.impl("pull", TORCH_BOX(&pull));
}
