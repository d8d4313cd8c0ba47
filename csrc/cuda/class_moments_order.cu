#include <algorithm>

#include "cuda/class_moments_order.h"

namespace imbdyn {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr unsigned kAll = 0xffffffffu;

/// Rows whose places a block finds by pairs; each of its warps compares them with every kWarps-th of the others.
constexpr int kPairRows = 32;

struct Out {
  Chunking chunking;
  Line* lines;
  int64_t chunk_lines;
  bool by_class;
  int64_t* count;
  bool fresh;
};

__device__ void write_class(const Out& out, int64_t line, int64_t c, int64_t start, int64_t rows) {
  const int64_t before = out.fresh ? 0 : out.count[c];
  if (out.fresh || rows > 0) out.count[c] = before + rows;
  out.lines[out.chunk_lines + line] = {c, start, rows, before};
}

__device__ void write_chunk(const Out& out, int64_t c, int64_t start, int64_t rows, int64_t place) {
  if (rows <= out.chunking.rows() || !out.chunking.begins(start, place)) return;
  out.lines[out.chunking.line(start, place)] = {c, start, rows, 0};
}

/// place[i] = #{j: (y_j, j) < (y_i, i)}, by comparing all pairs. Blocks from `row_blocks` on make lines of classes.
__global__ void __launch_bounds__(kThreads)
    order_by_pairs(Labels labels, int rows, int row_blocks, int32_t* order, Out out) {
  __shared__ int32_t classes[kMostPairs];
  __shared__ int32_t counted[kWarps][3][kPairRows];
  for (int j = static_cast<int>(threadIdx.x); j < rows; j += kThreads) classes[j] = class_of(labels, j);
  __syncthreads();
  const int block = static_cast<int>(blockIdx.x);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const bool of_rows = block < row_blocks;
  const int i = (of_rows ? block : block - row_blocks) * kPairRows + lane;
  const int32_t own = !of_rows ? i : i < rows ? classes[i] : -1;
  int32_t lower = 0, equal = 0, earlier = 0;
  for (int j = warp; j < rows; j += kWarps) {
    const int32_t other = classes[j];
    lower += other < own;
    equal += other == own;
    earlier += other == own && j < i;
  }
  counted[warp][0][lane] = lower;
  counted[warp][1][lane] = equal;
  counted[warp][2][lane] = earlier;
  __syncthreads();
  if (warp != 0) return;
  for (int other = 1; other < kWarps; ++other) {
    lower += counted[other][0][lane];
    equal += counted[other][1][lane];
    earlier += counted[other][2][lane];
  }
  if (!of_rows) {
    if (own < labels.num_classes) write_class(out, own, own, lower, equal);
    return;
  }
  if (own < 0 || own >= labels.num_classes) return;
  const int place = lower + earlier;
  order[place] = i;
  write_chunk(out, own, lower, equal, place);
  if (!out.by_class && earlier == 0) write_class(out, place, own, lower, equal);
}

/// The digit of a class that one pass sorts by.
struct Digit {
  int shift;
  int bins;
};

__device__ int digit_of(const Digit& digit, int32_t c) { return c >> digit.shift & (digit.bins - 1); }

/// histogram[block, digit] = rows of the block with that digit; totals[digit] += that, in whole numbers.
__global__ void __launch_bounds__(kThreads)
    count_digits(Labels labels, int64_t rows, Digit digit, const int32_t* input, int32_t* histogram, int32_t* totals) {
  extern __shared__ int32_t counts[];
  for (int bin = static_cast<int>(threadIdx.x); bin < digit.bins; bin += kThreads) counts[bin] = 0;
  __syncthreads();
  const int64_t first = int64_t{blockIdx.x} * kSortedRows;
#pragma unroll
  for (int k = 0; k < kSortedRows / kThreads; ++k) {
    const int64_t i = first + k * kThreads + threadIdx.x;
    const bool there = i < rows;
    const int bin = there ? digit_of(digit, class_of(labels, input == nullptr ? i : input[i])) : -1;
    // one addition for all lanes with the same digit
    const unsigned same = __match_any_sync(kAll, bin);
    if (there && static_cast<int>(threadIdx.x % 32) == __ffs(static_cast<int>(same)) - 1) {
      atomicAdd(&counts[bin], __popc(same));
    }
  }
  __syncthreads();
  for (int bin = static_cast<int>(threadIdx.x); bin < digit.bins; bin += kThreads) {
    histogram[int64_t{blockIdx.x} * digit.bins + bin] = counts[bin];
    if (counts[bin] > 0) atomicAdd(&totals[bin], counts[bin]);
  }
}

/// The sum over the threads before this one, and over all threads in `total`.
__device__ int32_t sum_before(int32_t value, int32_t* total) {
  __shared__ int32_t of_warp[kWarps];
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  int32_t until = value;
#pragma unroll
  for (int apart = 1; apart < 32; apart *= 2) {
    const int32_t left = __shfl_up_sync(kAll, until, apart);
    if (lane >= apart) until += left;
  }
  __syncthreads();  // of_warp may still be read from the call before
  if (lane == 31) of_warp[warp] = until;
  __syncthreads();
  int32_t before = until - value;
  *total = 0;
  for (int other = 0; other < kWarps; ++other) {
    if (other < warp) before += of_warp[other];
    *total += of_warp[other];
  }
  return before;
}

/// Makes of histogram[b, digit] the first place of block b's rows with that digit. `num_classes` > 0: the digit is the
/// class, whose line is written.
__global__ void __launch_bounds__(kThreads)
    start_digits(int64_t blocks, int bins, const int32_t* totals, int32_t* histogram, int64_t num_classes, Out out) {
  const int own = static_cast<int>(blockIdx.x);
  int32_t lower = 0, place;
  for (int bin = static_cast<int>(threadIdx.x); bin < own; bin += kThreads) lower += totals[bin];
  sum_before(lower, &place);
  if (threadIdx.x == 0 && own < num_classes) write_class(out, own, own, place, totals[own]);
  for (int64_t first = 0; first < blocks; first += kThreads) {
    const int64_t b = first + threadIdx.x;
    int32_t* at = histogram + b * bins + own;
    const int32_t here = b < blocks ? *at : 0;
    int32_t all;
    const int32_t before = sum_before(here, &all);
    if (b < blocks) *at = place + before;
    place += all;
  }
}

/// Puts the rows of a block to their places, those of one digit in the order in which they came. `num_classes` > 0: the
/// digit is the class, and lines of chunks are written.
__global__ void __launch_bounds__(kThreads)
    place_rows(Labels labels, int64_t rows, Digit digit, const int32_t* input, const int32_t* histogram, int32_t* order,
               int64_t num_classes, Out out) {
  extern __shared__ int32_t next[];
  for (int bin = static_cast<int>(threadIdx.x); bin < digit.bins; bin += kThreads) {
    next[bin] = histogram[int64_t{blockIdx.x} * digit.bins + bin];
  }
  constexpr int kRounds = kSortedRows / kThreads;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  int32_t row[kRounds], bin[kRounds], place[kRounds];
  unsigned same[kRounds];
#pragma unroll
  for (int k = 0; k < kRounds; ++k) {
    const int64_t i = int64_t{blockIdx.x} * kSortedRows + (warp * kRounds + k) * 32 + lane;
    row[k] = i >= rows ? -1 : input == nullptr ? static_cast<int32_t>(i) : input[i];
    bin[k] = row[k] < 0 ? -1 : digit_of(digit, class_of(labels, row[k]));
    same[k] = __match_any_sync(kAll, bin[k]);
  }
  for (int turn = 0; turn < kWarps; ++turn) {
    __syncthreads();
    if (turn != warp) continue;
#pragma unroll
    for (int k = 0; k < kRounds; ++k) {
      const int before = __popc(same[k] & ((1u << lane) - 1));
      place[k] = bin[k] < 0 ? 0 : next[bin[k]] + before;
      __syncwarp();
      if (bin[k] >= 0 && before == 0) next[bin[k]] += __popc(same[k]);
      __syncwarp();
    }
  }
#pragma unroll
  for (int k = 0; k < kRounds; ++k) {
    if (row[k] < 0 || (num_classes > 0 && bin[k] >= num_classes)) continue;
    order[place[k]] = row[k];
    if (num_classes > 0 && out.chunk_lines > 0) {
      const Line line = out.lines[out.chunk_lines + bin[k]];
      write_chunk(out, bin[k], line.start, line.rows, place[k]);
    }
  }
}

/// The rows of class `own`, which begins at `start` of sorted rows: most classes that are sorted by more than one digit
/// are small, so steps that double find the end sooner than halving all rows.
__device__ int64_t rows_from(const Labels& labels, const int32_t* order, int64_t rows, int64_t start, int32_t own) {
  int64_t low = start, step = 1;  // at low it is there
  while (low + step < rows && class_of(labels, order[low + step]) == own) {
    low += step;
    step *= 2;
  }
  int64_t high = low + step < rows ? low + step : rows;  // at high it is not
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (class_of(labels, order[middle]) == own) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return high - start;
}

/// The first place of class `own`, which is at `place` of sorted rows, by halving.
__device__ int64_t start_of(const Labels& labels, const int32_t* order, int64_t place, int32_t own) {
  int64_t low = 0, high = place;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (class_of(labels, order[middle]) == own) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return high;
}

/// Writes the lines of rows that were sorted by more than one digit.
__global__ void __launch_bounds__(kThreads) list_sorted(Labels labels, int64_t rows, const int32_t* order, Out out) {
  const int64_t place = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (place >= rows) return;
  const int32_t own = class_of(labels, order[place]);
  if (own >= labels.num_classes) return;
  const bool first = place == 0 || class_of(labels, order[place - 1]) != own;
  // No chunk but the first begins within the first chunk.
  const int64_t chunk = out.chunking.rows();
  if (!first && (place < chunk || class_of(labels, order[place - chunk]) != own)) return;
  const int64_t start = first ? place : start_of(labels, order, place, own);
  if (!out.chunking.begins(start, place)) return;
  const int64_t count = rows_from(labels, order, rows, start, own);
  write_chunk(out, own, start, count, place);
  if (first) write_class(out, out.by_class ? own : place, own, start, count);
}

unsigned blocks_for(int64_t n, int64_t each) { return static_cast<unsigned>((n + each - 1) / each); }

}  // namespace

void order_by_class(const Labels& labels, int64_t rows, const Plan& plan, int64_t* count, bool fresh, char* memory,
                    cudaStream_t stream) {
  const Out out{plan.chunking, reinterpret_cast<Line*>(memory + plan.lines_at), 2 * plan.windows, plan.by_class, count,
                fresh};
  auto* order = reinterpret_cast<int32_t*>(memory + plan.order_at);
  auto* other = reinterpret_cast<int32_t*>(memory + plan.other_order_at);
  auto* totals = reinterpret_cast<int32_t*>(memory + plan.totals_at);
  auto* histogram = reinterpret_cast<int32_t*>(memory + plan.histogram_at);
  if (plan.pairs) {
    if (!plan.by_class || plan.windows > 0) {
      cudaMemsetAsync(out.lines, 0, static_cast<size_t>(plan.lines) * sizeof(Line), stream);
    }
    const unsigned row_blocks = blocks_for(rows, kPairRows);
    const unsigned class_blocks = plan.by_class ? blocks_for(labels.num_classes, kPairRows) : 0;
    order_by_pairs<<<row_blocks + class_blocks, kThreads, 0, stream>>>(labels, static_cast<int>(rows),
                                                                       static_cast<int>(row_blocks), order, out);
    return;
  }
  // the lines and behind them the totals
  cudaMemsetAsync(memory + plan.lines_at, 0, static_cast<size_t>(plan.histogram_at - plan.lines_at), stream);
  const int bins = 1 << plan.digit_bits;
  const size_t shared = static_cast<size_t>(bins) * sizeof(int32_t);
  const auto blocks = static_cast<unsigned>(plan.blocks);
  const bool only = plan.passes == 1;
  const int32_t* input = nullptr;
  // The last pass writes `order`.
  int32_t* to = plan.passes % 2 == 1 ? order : other;
  for (int pass = 0; pass < plan.passes; ++pass) {
    const Digit digit{pass * plan.digit_bits, bins};
    const int64_t classes = only ? labels.num_classes : 0;
    count_digits<<<blocks, kThreads, shared, stream>>>(labels, rows, digit, input, histogram, totals + pass * bins);
    const auto starts = only ? static_cast<unsigned>(labels.num_classes + 1) : static_cast<unsigned>(bins);
    start_digits<<<starts, kThreads, 0, stream>>>(plan.blocks, bins, totals + pass * bins, histogram, classes, out);
    place_rows<<<blocks, kThreads, shared, stream>>>(labels, rows, digit, input, histogram, to, classes, out);
    input = to;
    to = to == order ? other : order;
  }
  if (!only) list_sorted<<<blocks_for(rows, kThreads), kThreads, 0, stream>>>(labels, rows, order, out);
}

}  // namespace imbdyn
