// What one thread sums of a chunk of a tensor. Plain C++ as well as CUDA: a test without a GPU runs every index of it.
#pragma once

#include "common/elements.h"

namespace imbdyn {
namespace {

/// A line of the table (imbdyn/ops/parameter_norms/table.py): addresses of the parts of w, grad and previous, and in
/// one number the element count (bits 0-31), one more than each of their types (4 bits each from bit 32; 0: not given)
/// and whether all addresses are multiples of 16 bytes (bit 44).
struct Chunk {
  int64_t w;
  int64_t grad;
  int64_t previous;
  int64_t about;
};

IMBDYN_HOST_DEVICE inline int64_t size_of(const Chunk& chunk) { return chunk.about & 0xffffffff; }
/// `which` is 0 for w, 1 for grad, 2 for previous; -1 is not given.
IMBDYN_HOST_DEVICE inline int type_of(const Chunk& chunk, int which) {
  return static_cast<int>(chunk.about >> (32 + 4 * which) & 15) - 1;
}
IMBDYN_HOST_DEVICE inline bool is_aligned(const Chunk& chunk) { return (chunk.about >> 44 & 1) != 0; }

struct Sums {
  double w_w;
  double grad_grad;
  double dw_dw;
  double w_dw;
};

IMBDYN_HOST_DEVICE inline void add(Sums& sums, double w, double grad, double previous) {
  const double dw = w - previous;
  sums.w_w += w * w;
  sums.grad_grad += grad * grad;
  sums.dw_dw += dw * dw;
  sums.w_dw += w * dw;
}

IMBDYN_HOST_DEVICE inline double element(int64_t address, int type, int64_t i) {
  switch (type) {
    case 0: return reinterpret_cast<const double*>(address)[i];
    case 1: return reinterpret_cast<const float*>(address)[i];
    case 2: return to_real(reinterpret_cast<const Bfloat16*>(address)[i]);
    case 3: return to_real(reinterpret_cast<const Float16*>(address)[i]);
    default: return 0;
  }
}

template <class T>
IMBDYN_HOST_DEVICE inline Wide<T> wide(int64_t address, int64_t i, bool given) {
  return given ? reinterpret_cast<const Wide<T>*>(address)[i] : Wide<T>{};
}

template <class T>
IMBDYN_HOST_DEVICE inline void add_wide(Sums& sums, const Wide<T>& w, const Wide<T>& grad, const Wide<T>& previous) {
  IMBDYN_UNROLL
  for (int k = 0; k < Wide<T>::kSize; ++k) {
    add(sums, to_real(w.value[k]), to_real(grad.value[k]), to_real(previous.value[k]));
  }
}

/// Loads of a thread that are on their way together.
constexpr int kTogether = 2;

/// The sums of a thread over a chunk whose tensors, as far as they are given, are arrays of T at aligned addresses.
template <class T>
IMBDYN_HOST_DEVICE inline Sums sum_alike(const Chunk& chunk, int thread, int threads) {
  Sums sums{0, 0, 0, 0};
  const bool has_grad = type_of(chunk, 1) >= 0;
  const bool has_previous = type_of(chunk, 2) >= 0;
  const int64_t size = size_of(chunk);
  const int64_t wides = size / Wide<T>::kSize;
  int64_t i = thread;
  for (; i + (kTogether - 1) * threads < wides; i += kTogether * threads) {
    Wide<T> w[kTogether], grad[kTogether], previous[kTogether];
    IMBDYN_UNROLL
    for (int k = 0; k < kTogether; ++k) {
      w[k] = wide<T>(chunk.w, i + k * threads, true);
      grad[k] = wide<T>(chunk.grad, i + k * threads, has_grad);
      previous[k] = wide<T>(chunk.previous, i + k * threads, has_previous);
    }
    IMBDYN_UNROLL
    for (int k = 0; k < kTogether; ++k) add_wide(sums, w[k], grad[k], previous[k]);
  }
  for (; i < wides; i += threads) {
    add_wide(sums, wide<T>(chunk.w, i, true), wide<T>(chunk.grad, i, has_grad),
             wide<T>(chunk.previous, i, has_previous));
  }
  const int type = type_of(chunk, 0);
  for (i = wides * Wide<T>::kSize + thread; i < size; i += threads) {
    add(sums, element(chunk.w, type, i), element(chunk.grad, type_of(chunk, 1), i),
        element(chunk.previous, type_of(chunk, 2), i));
  }
  return sums;
}

/// The sums of a thread over any chunk.
IMBDYN_HOST_DEVICE inline Sums sum_any(const Chunk& chunk, int thread, int threads) {
  Sums sums{0, 0, 0, 0};
  const int64_t size = size_of(chunk);
  for (int64_t i = thread; i < size; i += threads) {
    add(sums, element(chunk.w, type_of(chunk, 0), i), element(chunk.grad, type_of(chunk, 1), i),
        element(chunk.previous, type_of(chunk, 2), i));
  }
  return sums;
}

/// The sums of thread `thread` of `threads` over a chunk; 0 for what was not given.
IMBDYN_HOST_DEVICE inline Sums sum_chunk(const Chunk& chunk, int thread, int threads) {
  const int type = type_of(chunk, 0);
  const bool alike = is_aligned(chunk) && (type_of(chunk, 1) == type || type_of(chunk, 1) < 0) &&
                     (type_of(chunk, 2) == type || type_of(chunk, 2) < 0);
  if (!alike) return sum_any(chunk, thread, threads);
  switch (static_cast<ElementType>(type)) {
    case ElementType::float64: return sum_alike<double>(chunk, thread, threads);
    case ElementType::float32: return sum_alike<float>(chunk, thread, threads);
    case ElementType::bfloat16: return sum_alike<Bfloat16>(chunk, thread, threads);
    case ElementType::float16: return sum_alike<Float16>(chunk, thread, threads);
  }
  return {0, 0, 0, 0};
}

}  // namespace
}  // namespace imbdyn
