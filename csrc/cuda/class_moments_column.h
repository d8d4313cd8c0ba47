// One column of one class: mean and sum of squared deviations, by the same sums as the CPU kernel
// (cpu/class_moments_kernel.h). Plain C++ as well as CUDA: a test without a GPU runs every index and every sum of it.
#pragma once

#include "common/elements.h"

namespace imbdyn {
namespace {

// A float32 sum of this many squares keeps its digits.
constexpr int64_t kColumnChunk = 256;

template <class T>
IMBDYN_HOST_DEVICE inline Real<T> element(const Matrix& matrix, int64_t row, int64_t column) {
  return to_real(static_cast<const T*>(matrix.data)[row * matrix.row_stride + column * matrix.column_stride]);
}

/// mean and m2 of `column` over the rows rows[0 .. count), count >= 1; reads each element once unless one is not
/// finite.
template <class T>
IMBDYN_HOST_DEVICE inline void column_moments(const Matrix& features, const int64_t* rows, int64_t count,
                                              int64_t column, double* mean, double* m2) {
  using A = Real<T>;
  *mean = 0;
  *m2 = 0;
  for (int64_t begin = 0; begin < count; begin += kColumnChunk) {
    const int64_t end = begin + kColumnChunk < count ? begin + kColumnChunk : count;
    const A shift = begin == 0 ? element<T>(features, rows[0], column) : static_cast<A>(*mean);
    A s = 0;
    A q = 0;
    for (int64_t i = begin; i < end; ++i) {
      const A d = element<T>(features, rows[i], column) - shift;
      s += d;
      q += d * d;
    }
    const double n = static_cast<double>(end - begin);
    const double before = static_cast<double>(begin);
    const double weight = n / (before + n);
    const double offset = s / n;
    const double chunk_m2 = q - s * offset;
    const double delta = shift + offset - *mean;
    *mean += delta * weight;
    // Chan, Golub and LeVeque (1979); rounding may leave chunk_m2 a hair below zero, and NaN stays NaN.
    *m2 += (chunk_m2 < 0 ? 0 : chunk_m2) + delta * delta * (before * weight);
  }
  if (*m2 - *m2 == 0) return;
  // Infinities, NaN and sums that overflow come out as the definition has them.
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += element<T>(features, rows[i], column);
  *mean = sum / static_cast<double>(count);
  *m2 = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double d = element<T>(features, rows[i], column) - *mean;
    *m2 += d * d;
  }
}

}  // namespace
}  // namespace imbdyn
