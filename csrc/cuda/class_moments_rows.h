// What one thread sums of the rows of a class, and how such sums are merged. Plain C++ as well as CUDA: a test without
// a GPU runs every index and every sum of it.
#pragma once

#include "common/elements.h"

namespace imbdyn {
namespace {

/// Columns of a thread.
template <class T>
constexpr int kColumns = Wide<T>::kSize;

/// Rows of a thread whose elements are on their way together.
constexpr int kTogetherRows = 4;

/// The column k of a lane, of those from `first` on. A lane's columns lie together where one load brings them, else
/// neighbours read neighbours.
template <class T, bool kWide>
IMBDYN_HOST_DEVICE inline int64_t column_of(int64_t first, int lane, int k) {
  return kWide ? first + lane * kColumns<T> + k : first + lane + 32 * k;
}

/// The elements of a row in the columns of a lane; 0 behind the last column.
template <class T, bool kWide>
IMBDYN_HOST_DEVICE inline Wide<T> elements(const Matrix& features, int64_t row, int64_t first, int lane) {
  const T* at = static_cast<const T*>(features.data) + row * features.row_stride;
  if (kWide) {
    const int64_t column = column_of<T, true>(first, lane, 0);
    return column < features.columns ? *reinterpret_cast<const Wide<T>*>(at + column) : Wide<T>{};
  }
  Wide<T> result{};
  IMBDYN_UNROLL
  for (int k = 0; k < kColumns<T>; ++k) {
    const int64_t column = column_of<T, false>(first, lane, k);
    if (column < features.columns) result.value[k] = at[column * features.column_stride];
  }
  return result;
}

/// Rows `offset`, offset + step, ... of rows[0 .. count).
struct Share {
  const int32_t* rows;
  int32_t count;
  int32_t offset;
  int32_t step;
};

IMBDYN_HOST_DEVICE inline int32_t size_of(const Share& share) {
  return share.offset < share.count ? (share.count - share.offset + share.step - 1) / share.step : 0;
}

IMBDYN_HOST_DEVICE inline int32_t row_of(const Share& share, int32_t i) {
  return share.rows[share.offset + i * share.step];
}

/// mean and m2 of a lane's columns over a share of at least one row, with the mean of its first rows as shift:
/// d = x - shift, mean = shift + sum d / n, m2 = sum d^2 - (sum d)^2 / n.
template <class T, bool kWide>
IMBDYN_HOST_DEVICE inline void lane_moments(const Matrix& features, const Share& share, int64_t first, int lane,
                                            double* mean, Real<T>* m2) {
  using A = Real<T>;
  constexpr int kSize = kColumns<T>;
  const int32_t n = size_of(share);
  int32_t there = n < kTogetherRows ? n : kTogetherRows;
  int32_t row[kTogetherRows];
  Wide<T> x[kTogetherRows];
  A shift[kSize], s[kSize], q[kSize];
  IMBDYN_UNROLL
  for (int i = 0; i < kTogetherRows; ++i) row[i] = row_of(share, i < there ? i : 0);
  IMBDYN_UNROLL
  for (int i = 0; i < kTogetherRows; ++i) x[i] = elements<T, kWide>(features, row[i], first, lane);
  const A share_of_one = A(1) / static_cast<A>(there);
  IMBDYN_UNROLL
  for (int k = 0; k < kSize; ++k) {
    A sum = 0;
    IMBDYN_UNROLL
    for (int i = 0; i < kTogetherRows; ++i) sum += i < there ? to_real(x[i].value[k]) : A(0);
    shift[k] = sum * share_of_one;
    s[k] = q[k] = 0;
  }
  for (int32_t begin = 0; begin < n;) {
    const int32_t next = begin + kTogetherRows;
    const int32_t next_there = n - next < kTogetherRows ? n - next : kTogetherRows;
    if (next < n) {  // asked for before the sums need their processor
      IMBDYN_UNROLL
      for (int i = 0; i < kTogetherRows; ++i) row[i] = row_of(share, next + (i < next_there ? i : 0));
    }
    IMBDYN_UNROLL
    for (int i = 0; i < kTogetherRows; ++i) {
      if (i < there) {
        IMBDYN_UNROLL
        for (int k = 0; k < kSize; ++k) {
          const A d = to_real(x[i].value[k]) - shift[k];
          s[k] += d;
          q[k] += d * d;
        }
      }
    }
    if (next < n) {
      IMBDYN_UNROLL
      for (int i = 0; i < kTogetherRows; ++i) x[i] = elements<T, kWide>(features, row[i], first, lane);
    }
    begin = next;
    there = next_there;
  }
  const A rows = static_cast<A>(n);
  IMBDYN_UNROLL
  for (int k = 0; k < kSize; ++k) {
    const A offset = s[k] / rows;
    const A squares = q[k] - s[k] * offset;
    mean[k] = static_cast<double>(shift[k]) + static_cast<double>(offset);
    m2[k] = squares < 0 ? 0 : squares;  // rounding may leave a hair below zero; NaN stays
  }
}

/// Sums of a lane's columns in float64: of x, or of (x - mean)^2 if `mean` is given.
template <class T, bool kWide>
IMBDYN_HOST_DEVICE inline void lane_sums(const Matrix& features, const Share& share, int64_t first, int lane,
                                         const double* mean, double* sums) {
  IMBDYN_UNROLL
  for (int k = 0; k < kColumns<T>; ++k) sums[k] = 0;
  const int32_t n = size_of(share);
  for (int32_t i = 0; i < n; ++i) {
    const Wide<T> x = elements<T, kWide>(features, row_of(share, i), first, lane);
    IMBDYN_UNROLL
    for (int k = 0; k < kColumns<T>; ++k) {
      const double value = to_real(x.value[k]);
      const double d = mean == nullptr ? value : value - mean[k];
      sums[k] += mean == nullptr ? d : d * d;
    }
  }
}

struct Moments {
  double n;
  double mean;
  double m2;
};

IMBDYN_HOST_DEVICE inline bool is_finite(double x) { return x - x == 0; }

/// Merges parts one after the other, with the mean of the first as origin: d = mean_k - mean_0,
/// mean = mean_0 + sum n_k d / n, m2 = sum m2_k + sum n_k d^2 - (sum n_k d)^2 / n. Where a d is not finite, the mean is
/// sum n_k mean_k / n.
struct Merger {
  double origin;
  double n;
  double m2;
  double first;
  double second;
  double plain;

  /// A part without rows changes nothing, whatever it holds.
  IMBDYN_HOST_DEVICE void add(const Moments& part) {
    if (part.n == 0) return;
    const double d = part.mean - origin;
    n += part.n;
    m2 += part.m2;
    first += part.n * d;
    second += part.n * d * d;
    plain += part.n * part.mean;
  }

  /// Adds what another with the same origin has merged.
  IMBDYN_HOST_DEVICE void add(const Merger& other) {
    n += other.n;
    m2 += other.m2;
    first += other.first;
    second += other.second;
    plain += other.plain;
  }

  IMBDYN_HOST_DEVICE Moments result() const {
    const double offset = first / n;
    const double between = second - first * offset;
    return {n, is_finite(first) ? origin + offset : plain / n, m2 + (between < 0 ? 0 : between)};
  }
};

IMBDYN_HOST_DEVICE inline Merger merger_from(double origin) { return {origin, 0, 0, 0, 0, 0}; }

/// Merges the shares of `parts` threads, in two passes: shares may be of one row each, so that no one of them is a good
/// origin. Part k has mean[k * stride] and m2[k * stride].
template <class A>
IMBDYN_HOST_DEVICE inline Moments merge_shares(const Share& all, int parts, const double* mean, const A* m2,
                                               int stride) {
  Merger merger = merger_from(mean[0]);
  for (int k = 0; k < parts; ++k) {
    const auto n = static_cast<double>(size_of({all.rows, all.count, k, parts}));
    merger.add(Moments{n, mean[k * stride], static_cast<double>(m2[k * stride])});
  }
  Moments result = merger.result();
  result.m2 = merger.m2;
  for (int k = 0; k < parts && k < all.count; ++k) {
    const auto n = static_cast<double>(size_of({all.rows, all.count, k, parts}));
    const double d = mean[k * stride] - result.mean;
    result.m2 += n * d * d;
  }
  return result;
}

/// Moments so far with those of more rows (Chan, Golub and LeVeque, 1979); an infinite mean stays.
IMBDYN_HOST_DEVICE inline Moments merged(const Moments& before, const Moments& added) {
  const double n = before.n + added.n;
  const double weight = added.n / n;
  const double delta = added.mean - before.mean;
  const double mean =
      is_finite(delta) ? before.mean + delta * weight : before.mean * (1 - weight) + added.mean * weight;
  return {n, mean, before.m2 + added.m2 + delta * delta * (before.n * weight)};
}

}  // namespace
}  // namespace imbdyn
