// mean[j] = (1/n) sum_i x_ij and m2[j] = sum_i (x_ij - mean[j])^2 over the rows of one class, reading x once.
//
// Within a chunk of rows: d = x - shift, s = sum d, q = sum d^2 in the type of the arithmetic; then, in float64,
// mean = shift + s/n and m2 = q - s^2/n, merged into the chunks before by the pairwise rule of Chan, Golub and
// LeVeque (1979). A shift near the mean keeps q - s^2/n from cancelling. Internal linkage: see common/elements.h.
#pragma once

#include "common/elements.h"
#include "cpu/kernels.h"

namespace imbdyn {
namespace {

// A float32 sum of this many squares keeps its digits, and merging costs 1 in this many rows.
constexpr int64_t kChunkRows = 256;

/// Rows of a tile as contiguous panels: where they lie if they can be, else copied four at a time.
template <class T>
struct PanelRows {
  const MomentsTile& tile;
  T copy[4][kMomentsPanel];

  explicit PanelRows(const MomentsTile& t) : tile(t) {}

  const T* at(int64_t i) const {
    return static_cast<const T*>(tile.features.data) + tile.rows[i] * tile.features.row_stride +
           tile.first_column * tile.features.column_stride;
  }

  /// Points `row` at rows i..i+count-1 (count <= 4).
  void get(int64_t i, int64_t count, const T* (&row)[4]) {
    for (int64_t k = 0; k < count; ++k) row[k] = at(i + k);
    const int64_t stride = tile.features.column_stride;
    if (stride == 1) return;
    for (int64_t j = 0; j < tile.num_columns; ++j) {
      for (int64_t k = 0; k < count; ++k) copy[k][j] = row[k][j * stride];
    }
    for (int64_t k = 0; k < count; ++k) row[k] = copy[k];
  }
};

template <class T, class A>
void add_column(const T* const (&r)[4], int64_t j, const A* __restrict shift, A* __restrict s, A* __restrict q) {
  const A c = shift[j];
  const A d0 = to_real(r[0][j]) - c;
  const A d1 = to_real(r[1][j]) - c;
  const A d2 = to_real(r[2][j]) - c;
  const A d3 = to_real(r[3][j]) - c;
  s[j] += (d0 + d1) + (d2 + d3);
  q[j] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3);
}

inline void prefetch(const void* address) {
#if defined(__GNUC__)
  __builtin_prefetch(address);
#endif
}

/// Adds four rows and asks for the cache lines of four more: rows of one class lie apart, where no hardware looks
/// ahead.
template <class T, class A>
void add_four(const T* const (&r)[4], const T* const (&ahead)[4], const A* __restrict shift, A* __restrict s,
              A* __restrict q, int64_t columns) {
  constexpr int64_t kLine = 64 / sizeof(T);
  int64_t j = 0;
  for (; j + kLine <= columns; j += kLine) {
    for (int k = 0; k < 4; ++k) prefetch(ahead[k] + j);
    for (int64_t l = j; l < j + kLine; ++l) add_column(r, l, shift, s, q);
  }
  for (; j < columns; ++j) add_column(r, j, shift, s, q);
}

template <class T, class A>
void add_one(const T* row, const A* __restrict shift, A* __restrict s, A* __restrict q, int64_t columns) {
  for (int64_t j = 0; j < columns; ++j) {
    const A d = to_real(row[j]) - shift[j];
    s[j] += d;
    q[j] += d * d;
  }
}

/// Merges a chunk of `count` rows, with s and q about `shift`, into mean and m2 of the `before` rows before it.
template <class A>
void merge_chunk(int64_t before, int64_t count, const A* shift, const A* s, const A* q, double* __restrict mean,
                 double* __restrict m2, int64_t columns) {
  const double n = static_cast<double>(count);
  const double n_before = static_cast<double>(before);
  const double weight = n / (n_before + n);
  for (int64_t j = 0; j < columns; ++j) {
    const double offset = s[j] / n;
    const double chunk_m2 = q[j] - s[j] * offset;
    const double chunk_mean = shift[j] + offset;
    // Rounding may leave a hair below zero; NaN stays NaN.
    const double m2_here = chunk_m2 < 0 ? 0 : chunk_m2;
    if (before == 0) {
      mean[j] = chunk_mean;
      m2[j] = m2_here;
    } else {
      const double delta = chunk_mean - mean[j];
      mean[j] += delta * weight;
      m2[j] += m2_here + delta * delta * (n_before * weight);
    }
  }
}

/// The first chunk's shift: the mean of its first 8, 4, 2 or 1 rows. Powers of two, summed in pairs, so that equal rows
/// give exactly their value; 8, because q exceeds m2 by n (shift - mean)^2, and what cancels takes its digits along.
template <class T, class A>
void first_shift(PanelRows<T>& rows, int64_t count, A* shift) {
  const int64_t taken = count >= 8 ? 8 : count >= 4 ? 4 : count >= 2 ? 2 : 1;
  const A share = A(1) / static_cast<A>(taken);
  const int64_t columns = rows.tile.num_columns;
  const T* r[4];
  for (int64_t j = 0; j < columns; ++j) shift[j] = 0;
  for (int64_t i = 0; i < taken; i += 4) {
    const int64_t group = taken - i < 4 ? taken - i : 4;
    rows.get(i, group, r);
    if (group == 4) {
      for (int64_t j = 0; j < columns; ++j) {
        shift[j] += ((to_real(r[0][j]) + to_real(r[1][j])) + (to_real(r[2][j]) + to_real(r[3][j]))) * share;
      }
    } else if (group == 2) {
      for (int64_t j = 0; j < columns; ++j) shift[j] = (to_real(r[0][j]) + to_real(r[1][j])) * share;
    } else {
      for (int64_t j = 0; j < columns; ++j) shift[j] = to_real(r[0][j]);
    }
  }
}

inline bool finite(double x) { return x - x == 0; }

/// The definition, in two passes of float64, for one column: for infinities, NaN and sums that overflow.
template <class T>
void two_pass(const PanelRows<T>& rows, int64_t j, double* mean, double* m2) {
  const int64_t count = rows.tile.num_rows;
  const int64_t offset = j * rows.tile.features.column_stride;
  double sum = 0;
  // NaN stays: a network that has diverged must not cost two walks down every column.
  for (int64_t i = 0; i < count && sum == sum; ++i) sum += to_real(rows.at(i)[offset]);
  *mean = sum / static_cast<double>(count);
  double squares = sum == sum ? 0 : sum;
  for (int64_t i = 0; i < count && squares == squares; ++i) {
    const double d = to_real(rows.at(i)[offset]) - *mean;
    squares += d * d;
  }
  *m2 = squares;
}

/// The definition for classes of so few rows that a column's numbers stay in registers: with many classes in a batch
/// these are most of them, and what a class costs beside its rows would be most of the time.
template <class T, int N>
void few_rows(const PanelRows<T>& rows) {
  const T* row[N];
  for (int k = 0; k < N; ++k) row[k] = rows.at(k);
  double* __restrict mean = rows.tile.mean;
  double* __restrict m2 = rows.tile.m2;
  for (int64_t j = 0; j < rows.tile.num_columns; ++j) {
    double sum = 0, squares = 0;
    for (int k = 0; k < N; ++k) sum += to_real(row[k][j]);
    const double m = sum / N;  // not times 1/N: equal rows give exactly their value
    for (int k = 0; k < N; ++k) {
      const double d = to_real(row[k][j]) - m;
      squares += d * d;
    }
    mean[j] = m;
    m2[j] = squares;
  }
}

template <class T>
void class_moments_kernel(const MomentsTile& tile) {
  if (tile.features.column_stride == 1) {
    switch (tile.num_rows) {
      case 1: return few_rows<T, 1>(PanelRows<T>(tile));
      case 2: return few_rows<T, 2>(PanelRows<T>(tile));
      case 3:
        if (sizeof(T) == sizeof(double)) break;  // three times a float64 may be rounded
        return few_rows<T, 3>(PanelRows<T>(tile));
      case 4: return few_rows<T, 4>(PanelRows<T>(tile));
    }
  }
  using A = Real<T>;
  A shift[kMomentsPanel], s[kMomentsPanel], q[kMomentsPanel];
  PanelRows<T> rows(tile);
  const T* row[4];
  const T* ahead[4];
  const int64_t columns = tile.num_columns;
  double* __restrict mean = tile.mean;
  double* __restrict m2 = tile.m2;

  for (int64_t begin = 0; begin < tile.num_rows; begin += kChunkRows) {
    const int64_t left = tile.num_rows - begin;
    const int64_t count = left < kChunkRows ? left : kChunkRows;
    if (begin == 0) {
      first_shift(rows, count, shift);
    } else {
      for (int64_t j = 0; j < columns; ++j) shift[j] = static_cast<A>(mean[j]);
    }
    for (int64_t j = 0; j < columns; ++j) s[j] = q[j] = 0;
    int64_t i = begin;
    for (; i + 4 <= begin + count; i += 4) {
      rows.get(i, 4, row);
      for (int k = 0; k < 4; ++k) {
        const bool useful = tile.features.column_stride == 1 && i + 4 + k < tile.num_rows;
        ahead[k] = useful ? rows.at(i + 4 + k) : row[k];
      }
      add_four(row, ahead, shift, s, q, columns);
    }
    for (; i < begin + count; ++i) {
      rows.get(i, 1, row);
      add_one(row[0], shift, s, q, columns);
    }

    merge_chunk(begin, count, shift, s, q, mean, m2, columns);
  }
  for (int64_t j = 0; j < columns; ++j) {
    if (!finite(m2[j])) two_pass(rows, j, &mean[j], &m2[j]);
  }
}

}  // namespace
}  // namespace imbdyn
