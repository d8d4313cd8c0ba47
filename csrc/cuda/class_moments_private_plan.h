// class_moments of few classes on a GPU, with sums of its own in each warp's shared memory: who takes which rows, and
// what memory that needs. Index arithmetic alone, plain C++ as well as CUDA.
//
// Rows are cut into spans of neighbours, columns into panels of 512 bytes of a row; a warp takes a panel of a span, in
// the order in which rows lie. So rows are not ordered by class, and memory is read as it comes.
#pragma once

#include "common/elements.h"

namespace imbdyn {

/// Rows that a warp has read while the next are on their way. Those of one class are added together: a sum is taken
/// from shared memory and put back once for them.
constexpr int kBatchRows = 12;

/// Bytes of shared memory for a warp's sums at most (of 21 classes in float32, of 10 in the others): seven warps of a
/// multiprocessor then have 42 KB on their way, more than the 18 KB that hide the way to memory (3 TB/s times 0.7 us,
/// over 132 multiprocessors).
constexpr int64_t kPrivateBytes = 32 << 10;

/// Fewer rows are ordered by one launch.
constexpr int64_t kLeastPrivateRows = 4096;

/// Warps in all: what an H100 holds at a time, with the largest sums, so that none has to wait for a second turn.
constexpr int64_t kPrivateWarps = 132 * 7;

/// Rows of a span at least, so that partial results stay few.
constexpr int64_t kLeastSpanRows = 20 * kBatchRows;

struct PrivatePlan {
  /// Whether sums fit, and rows are many; the kernel needs rows that lie in pieces of 16 bytes besides.
  bool fits;
  int64_t panels;
  int64_t span_rows;
  int64_t spans;
  /// Of shared memory.
  int64_t bytes_of_sums;
  int64_t counts_at, partial_at;
  int64_t bytes;
};

/// `columns_of_lane` is how many columns are 16 bytes.
inline PrivatePlan make_private_plan(int64_t rows, int64_t columns, int64_t num_classes, int64_t columns_of_lane) {
  PrivatePlan plan{};
  const int64_t panel = 32 * columns_of_lane;
  plan.bytes_of_sums = num_classes * 3 * panel * 4;
  plan.fits = rows >= kLeastPrivateRows && plan.bytes_of_sums <= kPrivateBytes && columns > 0;
  if (!plan.fits) return plan;
  plan.panels = (columns + panel - 1) / panel;
  const int64_t wanted = kPrivateWarps / plan.panels > 0 ? kPrivateWarps / plan.panels : 1;
  const int64_t even = ((rows + wanted - 1) / wanted + kBatchRows - 1) / kBatchRows * kBatchRows;
  plan.span_rows = even > kLeastSpanRows ? even : kLeastSpanRows;
  plan.spans = (rows + plan.span_rows - 1) / plan.span_rows;
  plan.partial_at = (plan.spans * num_classes * 4 + 255) / 256 * 256;
  plan.bytes = plan.partial_at + plan.spans * num_classes * 3 * columns * 4;
  return plan;
}

}  // namespace imbdyn
