// Where moments of chunks of rows wait to be merged, and where those of classes go. For CUDA sources alone.
#pragma once

#include "cuda/class_moments_rows.h"

namespace imbdyn {
namespace {

/// Partial results, a line each: mean, what its rounding has left of it, and m2, each [D].
template <class A>
struct Partial {
  A* data;
  int64_t columns;

  __device__ A* at(int64_t line, int which, int64_t column) const {
    return data + (line * 3 + which) * columns + column;
  }
  __device__ void store(int64_t line, int64_t column, const Moments& moments) const {
    const A mean = static_cast<A>(moments.mean);
    const A left = static_cast<A>(moments.mean - static_cast<double>(mean));
    *at(line, 0, column) = mean;
    *at(line, 1, column) = is_finite(left) ? left : 0;
    *at(line, 2, column) = static_cast<A>(moments.m2);
  }
  __device__ Moments load(int64_t line, int64_t column, double n) const {
    return {n, static_cast<double>(*at(line, 0, column)) + static_cast<double>(*at(line, 1, column)),
            static_cast<double>(*at(line, 2, column))};
  }
};

template <class A>
struct Results {
  A* mean;
  A* m2;
  int64_t columns;
  bool fresh;

  /// Stores the moments of rows of class c, which had `before` rows before this call.
  __device__ void store(int64_t c, int64_t before, int64_t column, const Moments& moments) const {
    const int64_t at = c * columns + column;
    Moments all = moments;
    if (!fresh && before > 0) {
      all = merged({static_cast<double>(before), static_cast<double>(mean[at]), static_cast<double>(m2[at])}, all);
    }
    mean[at] = static_cast<A>(all.mean);
    m2[at] = static_cast<A>(all.m2);
  }
};

}  // namespace
}  // namespace imbdyn
