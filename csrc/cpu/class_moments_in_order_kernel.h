// The moments of class_moments_kernel.h for few classes, whose sums fit into a cache together: memory is read in the
// order in which rows lie. A row waits in the cache until there are four of its class, and is added with them, while
// the next four are asked for: as many additions one after another as where rows are read by class, and a fourth of the
// sums' way to and from the cache. Internal linkage: see common/elements.h.
#pragma once

#include "cpu/class_moments_kernel.h"

namespace imbdyn {
namespace {

// Rows of a class whose mean is the first shift, as in first_shift.
constexpr int64_t kFirstRows = 8;

/// Moments of the first rows of a class, of which `row` is number `count`: in float64, row by row (Welford 1962).
template <class T>
void add_first_row(const T* row, int64_t count, double* __restrict mean, double* __restrict m2, int64_t columns) {
  const double share = 1 / static_cast<double>(count);
  for (int64_t j = 0; j < columns; ++j) {
    const double x = to_real(row[j]);
    const double before = count == 1 ? x : mean[j];
    const double delta = x - before;  // not 0 where x is infinite or NaN
    mean[j] = before + delta * share;
    m2[j] = (count == 1 ? 0 : m2[j]) + delta * (x - mean[j]);
  }
}

/// Begins a chunk about the mean so far.
template <class A>
void begin_chunk(const double* mean, A* __restrict shift, A* __restrict s, A* __restrict q, int64_t columns) {
  for (int64_t j = 0; j < columns; ++j) {
    shift[j] = static_cast<A>(mean[j]);
    s[j] = q[j] = 0;
  }
}

/// Writes the rows of class c to `order`; returns their number.
inline int64_t rows_of_class(const MomentsSpan& span, int64_t c) {
  int64_t rows = 0;
  for (int64_t i = span.first_row; i < span.end_row; ++i) {
    if (span.labels.data[i * span.labels.stride] == c) span.order[rows++] = i;
  }
  return rows;
}

/// The definition where a sum is not finite: for each class that has such a column its rows are looked for.
template <class T>
void two_pass_where_not_finite(const MomentsSpan& span) {
  const int64_t columns = span.features.columns;
  for (int64_t c = 0; c < span.labels.num_classes; ++c) {
    if (span.count[c] == 0) continue;
    double* const mean = span.mean + c * columns;
    double* const m2 = span.m2 + c * columns;
    int64_t rows = 0;
    for (int64_t j = 0; j < columns; ++j) {
      if (finite(m2[j])) continue;
      if (rows == 0) rows = rows_of_class(span, c);
      if (rows == 0) break;  // labels that have changed meanwhile: no result is right, but no memory is wrong
      const MomentsTile tile{span.features, span.order, rows, 0, columns, mean, m2};
      two_pass(PanelRows<T>(tile), j, &mean[j], &m2[j]);
    }
  }
}

template <class T>
int64_t class_moments_in_order(const MomentsSpan& span) {
  using A = Real<T>;  // float: sums of float64 are not made here
  const int64_t columns = span.features.columns, num_classes = span.labels.num_classes;
  const auto row_at = [&](int64_t i) {
    return static_cast<const T*>(span.features.data) + i * span.features.row_stride;
  };
  const auto sums_at = [&](int64_t c) { return span.sums + 3 * c * columns; };
  const auto merge = [&](int64_t c, int64_t rows) {
    const A* const shift = sums_at(c);
    merge_chunk(span.count[c] - rows, rows, shift, shift + columns, shift + 2 * columns, span.mean + c * columns,
                span.m2 + c * columns, columns);
  };
  /// Rows of class c that its moments do not have; the last of them, less than four, its sums do not have either.
  const auto waiting = [&](int64_t c) {
    return span.count[c] <= kFirstRows ? 0 : (span.count[c] - kFirstRows) % kChunkRows;
  };
  int64_t* const waiting_rows = span.order;  // four a class
  int64_t asked = span.first_row;            // up to which rows are on their way to the cache

  for (int64_t c = 0; c < num_classes; ++c) span.count[c] = 0;
  for (int64_t i = span.first_row; i < span.end_row; ++i) {
    const int64_t y = span.labels.data[i * span.labels.stride];
    if (y == span.labels.ignore_index) continue;
    if (y < 0 || y >= num_classes) return i;
    double* const mean = span.mean + y * columns;
    A* const shift = sums_at(y);
    A* const s = shift + columns;
    A* const q = s + columns;
    const int64_t count = ++span.count[y];
    if (count <= kFirstRows) {
      add_first_row(row_at(i), count, mean, span.m2 + y * columns, columns);
    } else {
      waiting_rows[4 * y + (waiting(y) + 3) % 4] = i;
      if (waiting(y) % 4 != 0) continue;
      const T* row[4];
      for (int k = 0; k < 4; ++k) row[k] = row_at(waiting_rows[4 * y + k]);
      asked = asked > i ? asked : i + 1;
      const T* ahead[4];
      for (int k = 0; k < 4; ++k) ahead[k] = row_at(asked + k < span.end_row ? asked + k : span.end_row - 1);
      asked += 4;
      add_four(row, ahead, shift, s, q, columns);
      if (waiting(y) == 0) merge(y, kChunkRows);
    }
    if (count >= kFirstRows && waiting(y) == 0) begin_chunk(mean, shift, s, q, columns);
  }
  for (int64_t c = 0; c < num_classes; ++c) {
    A* const shift = sums_at(c);
    for (int64_t k = 0; k < waiting(c) % 4; ++k) {
      add_one(row_at(waiting_rows[4 * c + k]), shift, shift + columns, shift + 2 * columns, columns);
    }
    if (waiting(c) > 0) merge(c, waiting(c));
  }
  two_pass_where_not_finite<T>(span);
  return kAllLabelsGood;
}

}  // namespace
}  // namespace imbdyn
