// How class_moments is done on a GPU: which way rows are ordered by class, who takes which of them, and what memory
// that needs. Index arithmetic alone, plain C++ as well as CUDA: a test without a GPU runs it.
//
// `order` holds row numbers by class, and by row within a class. `lines` say what a block takes:
//  - Lines 0 .. 2 W - 1, W = ceil(N / B), are chunks of B rows of classes that have more. The first chunk of a class
//  that
//    starts at place s is in line 2 (s / B) + 1, and its chunk k in line 2 ((s + k B) / B). No two meet: in a window of
//    B places at most one such class goes on and at most one begins. So nothing is claimed or counted: each row knows
//    from its own place whether a chunk begins with it, and where it goes.
//  - The lines behind are classes: line 2 W + c for class c if C <= N, else 2 W + its first place.
// Lines that are not used have 0 rows.
#pragma once

#include "common/elements.h"

namespace imbdyn {

/// Bounds of the rows of one class that a block takes, B, a power of two: with few rows, enough blocks for a GPU;
/// with many, few partial results.
constexpr int kLeastChunkBits = 7;
constexpr int kMostChunkBits = 10;
constexpr int64_t kBlocksWanted = 2048;

/// Up to 2^bits rows, no class has more than one chunk: the launch that merges them would cost more than it saves.
constexpr int kOneChunkBits = 9;

/// Bytes of a row that a block reads. Blocks end at about the same time and the last few of them run alone: the smaller
/// they are, the sooner.
constexpr int64_t kPanelBytes = 1024;

/// Up to so many rows all pairs of labels are compared, if one digit does or does not tell the classes apart; more are
/// sorted by digits of their classes.
constexpr int64_t kMostPairsForOneDigit = 2048;
constexpr int64_t kMostPairs = 8192;

/// Bits of a digit: what a block counts in shared memory.
constexpr int kMostDigitBits = 11;

/// Rows that a block counts, and puts to their places.
constexpr int kSortedRows = 512;

struct Line {
  int64_t c;
  int64_t start;
  int64_t rows;
  /// Rows of the class before this call.
  int64_t before;
};

/// Chunks of 2^bits rows of a class that starts at place `start`.
struct Chunking {
  int bits;

  IMBDYN_HOST_DEVICE int64_t rows() const { return int64_t{1} << bits; }
  IMBDYN_HOST_DEVICE int64_t chunks(int64_t of_rows) const { return (of_rows + rows() - 1) >> bits; }
  IMBDYN_HOST_DEVICE bool begins(int64_t start, int64_t place) const { return ((place - start) & (rows() - 1)) == 0; }
  /// The line of the chunk that begins at `place`.
  IMBDYN_HOST_DEVICE int64_t line(int64_t start, int64_t place) const {
    return 2 * (place >> bits) + (place == start ? 1 : 0);
  }
  /// The rows of its class that lie before the chunk of a line.
  IMBDYN_HOST_DEVICE int64_t rows_before(int64_t line, int64_t start) const {
    return line % 2 == 1 ? 0 : (line / 2 - (start >> bits)) << bits;
  }
};

/// The class of a label, `num_classes` if it counts nowhere.
IMBDYN_HOST_DEVICE inline int32_t class_of(const Labels& labels, int64_t row) {
  const int64_t label = labels.data[row * labels.stride];
  const bool counts = label >= 0 && label < labels.num_classes && label != labels.ignore_index;
  return static_cast<int32_t>(counts ? label : labels.num_classes);
}

/// How a call is done; offsets into its memory are bytes.
struct Plan {
  /// Whether there are enough chunks of kPanelBytes a row for a GPU.
  bool many_blocks;
  Chunking chunking;
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

/// `element_bytes` is the size of a feature, `real_bytes` that of a number of mean and m2.
inline Plan make_plan(int64_t rows, int64_t columns, int64_t num_classes, int64_t element_bytes, int64_t real_bytes) {
  Plan plan{};
  const int64_t panels = (columns * element_bytes + kPanelBytes - 1) / kPanelBytes;
  plan.chunking.bits = rows <= int64_t{1} << kOneChunkBits ? kOneChunkBits : kLeastChunkBits;
  while (plan.chunking.bits < kMostChunkBits && (rows * panels >> plan.chunking.bits) > kBlocksWanted) {
    ++plan.chunking.bits;
  }
  plan.many_blocks = rows * panels >> plan.chunking.bits > kBlocksWanted / 4;
  plan.windows = rows > plan.chunking.rows() ? plan.chunking.chunks(rows) : 0;
  plan.by_class = num_classes <= rows;
  plan.lines = 2 * plan.windows + (plan.by_class ? num_classes : rows);
  int bits = 1;
  while (num_classes >> bits != 0) ++bits;  // `num_classes` itself is a digit's value: rows that count nowhere
  plan.pairs = rows <= (bits <= kMostDigitBits ? kMostPairsForOneDigit : kMostPairs);
  if (!plan.pairs) {
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
