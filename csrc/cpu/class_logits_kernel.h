// Eight sums by class over rows of logits z with label y; p = softmax(z), m = max z, e_k = exp(z_k - m), s = sum e_k:
// loss = log s - (z_y - m), confidence p_y = e_y / s, margin = z_y - max_{k != y} z_k, and so on (kernels.h names
// them).
//
// Two ways: along a row for many classes (the row stays in the first cache between its passes), and across kLogitRows
// rows for few. Infinite and NaN logits come out as softmax and argmax have them. Internal linkage: see
// common/elements.h.
#pragma once

#include <math.h>

#include <type_traits>

#include "common/exp.h"
#include "cpu/kernels.h"

namespace imbdyn {
namespace {

/// What one row is, beside its e_k.
struct LogitRow {
  double loss;
  double margin;
  double confidence;
  int64_t prediction;
};

/// Element k of a row, for the few elements that are read one by one.
template <class T>
Real<T> logit_at(const T* row, int64_t k, int64_t stride) {
  return to_real(row[k * stride]);
}

/// A row whose softmax is NaN (it holds NaN or +inf, or nothing but -inf): only prediction and margin need care.
template <class T>
LogitRow undefined_row(const T* row, int64_t num_classes, int64_t stride, int64_t y) {
  const double nan = NAN;
  const double z_y = logit_at(row, y, stride);
  LogitRow out{nan, nan, nan, 0};
  double best = logit_at(row, 0, stride);
  double best_other = -INFINITY;
  for (int64_t k = 0; k < num_classes; ++k) {
    const double z = logit_at(row, k, stride);
    if (z != z) {  // argmax takes the first NaN, and every maximum with it is NaN
      out.prediction = k;
      return out;
    }
    if (z > best) {
      best = z;
      out.prediction = k;
    }
    if (k != y && z > best_other) best_other = z;
  }
  out.margin = z_y - best_other;
  return out;
}

/// Add a row to the sums of its label and of its prediction.
inline void add_row(const LogitRow& row, int64_t y, double* sums, int64_t num_classes) {
  sums[kCount * num_classes + y] += 1;
  sums[kLoss * num_classes + y] += row.loss;
  sums[kCorrect * num_classes + y] += row.prediction == y ? 1 : 0;
  sums[kMargin * num_classes + y] += row.margin;
  sums[kConfidence * num_classes + y] += row.confidence;
  sums[kPredicted * num_classes + row.prediction] += 1;
  sums[kPositive * num_classes + y] += 1 - row.confidence;
}

inline bool bad_label(const Labels& labels, int64_t y) { return y < 0 || y >= labels.num_classes; }

// ---- along a row ----

/// Rows whose probabilities are summed in the type of the arithmetic before float64 takes over.
constexpr int64_t kRecentRows = 16;
/// Lanes of the reductions: four vectors of AVX2 floats hide the latency of an addition.
constexpr int kLanes = 32;

/// Largest of z[0..n), passing over NaN; -inf if there is none.
template <class A>
A largest(const A* z, int64_t n) {
  A lane[kLanes];
  for (int l = 0; l < kLanes; ++l) lane[l] = -INFINITY;
  int64_t k = 0;
  for (; k + kLanes <= n; k += kLanes) {
    for (int l = 0; l < kLanes; ++l) lane[l] = z[k + l] > lane[l] ? z[k + l] : lane[l];
  }
  A best = -INFINITY;
  for (; k < n; ++k) best = z[k] > best ? z[k] : best;
  for (int l = 0; l < kLanes; ++l) best = lane[l] > best ? lane[l] : best;
  return best;
}

/// e[k] = exp(z[k] - m); returns their sum.
template <class A>
double exponentials(const A* z, A m, A* __restrict e, int64_t n) {
  A lane[kLanes] = {};
  int64_t k = 0;
  for (; k + kLanes <= n; k += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const A value = exp_nonpositive(z[k + l] - m);
      e[k + l] = value;
      lane[l] += value;
    }
  }
  double sum = 0;
  for (; k < n; ++k) sum += e[k] = exp_nonpositive(z[k] - m);
  for (int l = 0; l < kLanes; ++l) sum += lane[l];
  return sum;
}

template <class A>
void add_scaled(const A* e, A factor, A* __restrict sum, int64_t n) {
  for (int64_t k = 0; k < n; ++k) sum[k] += e[k] * factor;
}

/// Moves what some rows have given in the type of the arithmetic to the sums in float64.
template <class A>
void flush(A* __restrict from, double* __restrict to, int64_t n) {
  for (int64_t k = 0; k < n; ++k) {
    to[k] += from[k];
    from[k] = 0;
  }
}

/// The row as numbers of the arithmetic: where it lies if it can be, else copied to `copy`.
template <class T>
const Real<T>* readable_row(const T* row, int64_t stride, int64_t n, Real<T>* __restrict copy) {
  if constexpr (std::is_same_v<T, Real<T>>) {
    if (stride == 1) return row;
  }
  if (stride == 1) {
    for (int64_t k = 0; k < n; ++k) copy[k] = to_real(row[k]);
  } else {
    for (int64_t k = 0; k < n; ++k) copy[k] = to_real(row[k * stride]);
  }
  return copy;
}

template <class T>
int64_t logits_along_rows(const LogitsTile& tile) {
  using A = Real<T>;
  const int64_t num_classes = tile.labels.num_classes;
  const int64_t stride = tile.logits.column_stride;
  A* const copy = static_cast<A*>(tile.scratch);
  A* const e = copy + num_classes;
  A* const recent = e + num_classes;
  for (int64_t k = 0; k < num_classes; ++k) recent[k] = 0;
  double* const negative = tile.sums + kNegative * num_classes;
  int64_t waiting = 0;
  for (int64_t i = tile.first_row; i < tile.end_row; ++i) {
    const int64_t y = tile.labels.data[i * tile.labels.stride];
    if (y == tile.labels.ignore_index) continue;
    if (bad_label(tile.labels, y)) return i;
    const T* const row = static_cast<const T*>(tile.logits.data) + i * tile.logits.row_stride;
    const A* const z = readable_row(row, stride, num_classes, copy);
    const A before = largest(z, y);
    const A after = largest(z + y + 1, num_classes - y - 1);
    const A best_other = before >= after ? before : after;
    const A m = z[y] > best_other ? z[y] : best_other;
    const double s = exponentials(z, m, e, num_classes);

    LogitRow out;
    if (s != s) {
      out = undefined_row(row, num_classes, stride, y);
    } else {
      out.loss = ::log(s) - (static_cast<double>(z[y]) - m);
      out.margin = static_cast<double>(z[y]) - best_other;
      out.confidence = e[y] / s;
      out.prediction = y;
      if (best_other >= z[y]) {  // the first of the largest, y among them
        out.prediction = 0;
        while (z[out.prediction] != m) ++out.prediction;
      }
    }
    add_row(out, y, tile.sums, num_classes);
    // p_y belongs to positive_grad alone. Not added and subtracted again: a NaN would stay.
    const A factor = static_cast<A>(1 / s);
    add_scaled(e, factor, recent, y);
    add_scaled(e + y + 1, factor, recent + y + 1, num_classes - y - 1);
    if (++waiting == kRecentRows) {
      flush(recent, negative, num_classes);
      waiting = 0;
    }
  }
  flush(recent, negative, num_classes);
  return kAllLabelsGood;
}

// ---- across rows ----

/// Rows that count, kLogitRows at a time, as columns: z[k * kLogitRows + r] is class k of row r.
template <class A>
struct LogitBlock {
  int64_t rows[kLogitRows];
  int32_t label[kLogitRows];
  A best_other[kLogitRows];
  int32_t other[kLogitRows];  ///< the first class other than the label that has best_other
  A largest[kLogitRows];
  double sum[kLogitRows];
  double scale[kLogitRows];  ///< 1/s, and 0 for the rows that fill up the last block
};

template <class T, class A>
void load_block(const LogitsTile& tile, const LogitBlock<A>& block, int64_t count, A* __restrict z) {
  const int64_t num_classes = tile.labels.num_classes;
  const int64_t stride = tile.logits.column_stride;
  const T* const data = static_cast<const T*>(tile.logits.data);
  if (stride == 1) {
    for (int64_t r = 0; r < count; ++r) {
      const T* const row = data + block.rows[r] * tile.logits.row_stride;
      for (int64_t k = 0; k < num_classes; ++k) z[k * kLogitRows + r] = to_real(row[k]);
    }
  } else {
    for (int64_t k = 0; k < num_classes; ++k) {
      for (int64_t r = 0; r < count; ++r) {
        z[k * kLogitRows + r] = to_real(data[block.rows[r] * tile.logits.row_stride + k * stride]);
      }
    }
  }
  for (int64_t k = 0; k < num_classes; ++k) {
    for (int64_t r = count; r < kLogitRows; ++r) z[k * kLogitRows + r] = 0;
  }
}

template <class A>
void best_others(const A* z, LogitBlock<A>& block, int64_t num_classes) {
  for (int r = 0; r < kLogitRows; ++r) {
    block.best_other[r] = -INFINITY;
    block.other[r] = 0;
  }
  for (int32_t k = 0; k < num_classes; ++k) {
    const A* const z_k = z + k * kLogitRows;
    for (int r = 0; r < kLogitRows; ++r) {
      const bool better = (z_k[r] > block.best_other[r]) & (block.label[r] != k);
      block.best_other[r] = better ? z_k[r] : block.best_other[r];
      block.other[r] = better ? k : block.other[r];
    }
  }
}

/// z becomes exp(z - m), and sum its sum over the classes (in float64 every kLanes classes, as along a row).
template <class A>
void exponentials_of_block(A* z, LogitBlock<A>& block, int64_t num_classes) {
  for (int r = 0; r < kLogitRows; ++r) block.sum[r] = 0;
  for (int64_t begin = 0; begin < num_classes; begin += kLanes) {
    const int64_t end = begin + kLanes < num_classes ? begin + kLanes : num_classes;
    A sum[kLogitRows] = {};
    for (int64_t k = begin; k < end; ++k) {
      A* const z_k = z + k * kLogitRows;
      for (int r = 0; r < kLogitRows; ++r) {
        z_k[r] = exp_nonpositive(z_k[r] - block.largest[r]);
        sum[r] += z_k[r];
      }
    }
    for (int r = 0; r < kLogitRows; ++r) block.sum[r] += sum[r];
  }
}

/// sum over the rows of e * scale, in eight lanes.
template <class A>
double weighted_sum(const A* e, const double* scale) {
  double lane[8] = {};
  for (int r = 0; r < kLogitRows; r += 8) {
    for (int l = 0; l < 8; ++l) lane[l] += static_cast<double>(e[r + l]) * scale[r + l];
  }
  return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

template <class T, class A>
void add_block(const LogitsTile& tile, LogitBlock<A>& block, int64_t count) {
  const int64_t num_classes = tile.labels.num_classes;
  A* const z = static_cast<A*>(tile.scratch);
  A z_label[kLogitRows];
  for (int64_t r = count; r < kLogitRows; ++r) block.label[r] = 0;
  load_block<T>(tile, block, count, z);
  best_others(z, block, num_classes);
  for (int r = 0; r < kLogitRows; ++r) {
    z_label[r] = z[block.label[r] * kLogitRows + r];
    block.largest[r] = z_label[r] > block.best_other[r] ? z_label[r] : block.best_other[r];
  }
  exponentials_of_block(z, block, num_classes);
  for (int64_t r = 0; r < kLogitRows; ++r) block.scale[r] = 0;
  for (int64_t r = 0; r < count; ++r) {
    const int32_t y = block.label[r];
    const double s = block.sum[r];
    LogitRow out;
    if (s != s) {
      const T* const row = static_cast<const T*>(tile.logits.data) + block.rows[r] * tile.logits.row_stride;
      out = undefined_row(row, num_classes, tile.logits.column_stride, y);
    } else {
      const bool label_first =
          z_label[r] > block.best_other[r] || (z_label[r] == block.best_other[r] && y < block.other[r]);
      out.loss = ::log(s) - (static_cast<double>(z_label[r]) - block.largest[r]);
      out.margin = static_cast<double>(z_label[r]) - block.best_other[r];
      out.confidence = z[y * kLogitRows + r] / s;
      out.prediction = label_first ? y : block.other[r];
    }
    add_row(out, y, tile.sums, num_classes);
    // p_y belongs to positive_grad alone; after this, NaN in one row must still reach every other class.
    block.scale[r] = s != s ? 1 : 1 / s;
    if (s != s) {
      for (int64_t k = 0; k < num_classes; ++k) z[k * kLogitRows + r] = NAN;
    }
    z[y * kLogitRows + r] = 0;
  }
  double* const negative = tile.sums + kNegative * num_classes;
  for (int64_t k = 0; k < num_classes; ++k) negative[k] += weighted_sum(z + k * kLogitRows, block.scale);
}

template <class T>
int64_t logits_across_rows(const LogitsTile& tile) {
  LogitBlock<Real<T>> block;
  int64_t count = 0;
  for (int64_t i = tile.first_row; i < tile.end_row; ++i) {
    const int64_t y = tile.labels.data[i * tile.labels.stride];
    if (y == tile.labels.ignore_index) continue;
    if (bad_label(tile.labels, y)) return i;
    block.rows[count] = i;
    block.label[count] = static_cast<int32_t>(y);
    if (++count == kLogitRows) {
      add_block<T>(tile, block, count);
      count = 0;
    }
  }
  if (count > 0) add_block<T>(tile, block, count);
  return kAllLabelsGood;
}

template <class T>
int64_t class_logits_kernel(const LogitsTile& tile) {
  return few_classes(tile.labels.num_classes, tile.logits.column_stride) ? logits_across_rows<T>(tile)
                                                                         : logits_along_rows<T>(tile);
}

}  // namespace
}  // namespace imbdyn
