// How class_moments is done on a GPU: which way rows are ordered by class, who takes which of them, and what memory
// that needs. Index arithmetic alone, plain C++ as well as CUDA: a test without a GPU runs it.
//
// `order` holds row numbers by class, and by row within a class. `lines` say what a block takes:
//  - Lines 0 .. 2 W - 1, W = ceil(N / kChunkRows), are chunks of kChunkRows rows of classes that have more. The first
//    chunk of a class that starts at place s is in line 2 (s / kChunkRows) + 1, and its chunk k in line
//    2 ((s + k kChunkRows) / kChunkRows). No two meet: in a window of kChunkRows places at most one such class goes on
//    and at most one begins. So nothing is claimed or counted: each row knows from its own place whether a chunk begins
//    with it, and where it goes.
//  - The lines behind are classes: line 2 W + c for class c if C <= N, else 2 W + its first place.
// Lines that are not used have 0 rows.
#pragma once

#include "common/elements.h"

namespace imbdyn {

/// Rows of one class that a block takes.
constexpr int kChunkRows = 1024;

/// Up to so many rows, all pairs of labels are compared; above, they are sorted by digits of their classes.
constexpr int64_t kMostPairs = 2048;

/// Bits of a digit: what a block counts in shared memory.
constexpr int kMostDigitBits = 11;

/// Rows that a block counts, and puts to their places.
constexpr int kSortedRows = 1024;

struct Line {
  int64_t c;
  int64_t start;
  int64_t rows;
  /// Rows of the class before this call.
  int64_t before;
};

IMBDYN_HOST_DEVICE inline int64_t chunk_line(int64_t start, int64_t place) {
  return 2 * (place / kChunkRows) + (place == start ? 1 : 0);
}

/// The rows of a chunk: which of its class's places are done before it.
IMBDYN_HOST_DEVICE inline int64_t places_before_chunk(int64_t line, int64_t start) {
  return line % 2 == 1 ? 0 : (line / 2 - start / kChunkRows) * kChunkRows;
}

/// The class of a label, `num_classes` if it counts nowhere.
IMBDYN_HOST_DEVICE inline int32_t class_of(const Labels& labels, int64_t row) {
  const int64_t label = labels.data[row * labels.stride];
  const bool counts = label >= 0 && label < labels.num_classes && label != labels.ignore_index;
  return static_cast<int32_t>(counts ? label : labels.num_classes);
}

/// How a call is done; offsets into its memory are bytes.
struct Plan {
  int64_t windows;
  int64_t lines;
  bool by_class;
  bool pairs;
  int passes;
  int digit_bits;
  int64_t blocks;
  int64_t lines_at, totals_at, histogram_at, order_at, other_order_at, partial_at;
  int64_t bytes;
};

/// `real_bytes` is the size of a number of mean and m2.
inline Plan make_plan(int64_t rows, int64_t columns, int64_t num_classes, int64_t real_bytes) {
  Plan plan{};
  plan.windows = rows > kChunkRows ? (rows + kChunkRows - 1) / kChunkRows : 0;
  plan.by_class = num_classes <= rows;
  plan.lines = 2 * plan.windows + (plan.by_class ? num_classes : rows);
  plan.pairs = rows <= kMostPairs;
  if (!plan.pairs) {
    int bits = 1;
    while (num_classes >> bits != 0) ++bits;  // `num_classes` itself is a digit's value: rows that count nowhere
    plan.passes = (bits + kMostDigitBits - 1) / kMostDigitBits;
    plan.digit_bits = (bits + plan.passes - 1) / plan.passes;
    plan.blocks = (rows + kSortedRows - 1) / kSortedRows;
  }
  const auto take = [&](int64_t bytes) {
    const int64_t at = plan.bytes;
    plan.bytes += (bytes + 255) / 256 * 256;
    return at;
  };
  const int64_t bins = plan.pairs ? 0 : int64_t{1} << plan.digit_bits;
  plan.lines_at = take(plan.lines * static_cast<int64_t>(sizeof(Line)));
  plan.totals_at = take(plan.passes * bins * 4);
  plan.histogram_at = take(plan.blocks * bins * 4);
  plan.order_at = take(rows * 4);
  plan.other_order_at = take(plan.passes > 1 ? rows * 4 : 0);
  plan.partial_at = take(2 * plan.windows * 3 * columns * real_bytes);
  return plan;
}

}  // namespace imbdyn
