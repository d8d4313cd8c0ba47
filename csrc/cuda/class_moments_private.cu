#include "cuda/class_moments_plan.h"
#include "cuda/class_moments_private.h"
#include "cuda/class_moments_results.h"

namespace imbdyn {
namespace {

constexpr unsigned kAll = 0xffffffffu;

/// Rows begin .. end - 1, whose classes are `labels`.
struct Span {
  Labels labels;
  int64_t begin;
  int64_t end;
};

/// The class of one row of a batch for each of the first kBatchRows lanes; num_classes behind the span's end.
__device__ inline int32_t batch_class(const Span& span, int64_t row, int lane) {
  const bool there = lane < kBatchRows && row + lane < span.end;
  return there ? class_of(span.labels, row + lane) : static_cast<int32_t>(span.labels.num_classes);
}

/// A batch's elements in the columns of a lane; behind the end the last row again, which is not added.
template <class T>
__device__ inline void load_batch(const Matrix& features, const Span& span, int64_t row, int64_t first, int lane,
                                  Wide<T>* x) {
#pragma unroll
  for (int i = 0; i < kBatchRows; ++i) {
    const int64_t at = row + i < span.end ? row + i : span.end - 1;
    x[i] = elements<T, true>(features, at, first, lane);
  }
}

/// Mean, or squared deviations from `mean`, of a lane's columns over the rows of class c, as the definition has them.
template <class T>
__device__ void sums_by_definition(const Matrix& features, const Span& span, int32_t c, int64_t first, int lane,
                                   const double* mean, double* sums) {
#pragma unroll
  for (int k = 0; k < kColumns<T>; ++k) sums[k] = 0;
  for (int64_t row = span.begin; row < span.end; ++row) {
    if (class_of(span.labels, row) != c) continue;
    const Wide<T> x = elements<T, true>(features, row, first, lane);
#pragma unroll
    for (int k = 0; k < kColumns<T>; ++k) {
      const double value = to_real(x.value[k]);
      const double d = mean == nullptr ? value : value - mean[k];
      sums[k] += mean == nullptr ? d : d * d;
    }
  }
}

/// What the widest access to shared memory moves.
using Four = Wide<float>;

enum Sum { kShift, kOfDeviations, kOfSquares, kSums };

/// A lane's numbers of one class in shared memory, by fours: neighbours in a warp are neighbours there.
template <int kSize>
__device__ inline Four* sums_of(Four* sums, int32_t c, Sum which, int lane) {
  return sums + (c * kSums + which) * (kSize / 4) * 32 + lane;
}

template <int kSize>
__device__ inline void load(const Four* at, float* to) {
#pragma unroll
  for (int k = 0; k < kSize; k += 4) {
    const Four four = at[k / 4 * 32];
#pragma unroll
    for (int j = 0; j < 4; ++j) to[k + j] = four.value[j];
  }
}

template <int kSize>
__device__ inline void store(Four* at, const float* from) {
#pragma unroll
  for (int k = 0; k < kSize; k += 4) at[k / 4 * 32] = {{from[k], from[k + 1], from[k + 2], from[k + 3]}};
}

/// The moments of one span and one panel of columns, a line of `partial` and a number of `counts` for each class.
///
/// Shared memory holds for each class shift, sum d and sum d^2, d = x - shift; a lane has its own columns there, so
/// that nothing is added by two. The shift is the mean of the first rows of a class that come together.
template <class T>
__global__ void __launch_bounds__(32) moments_of_spans(Matrix features, Labels labels, int64_t span_rows,
                                                       unsigned panels, Partial<float> partial, int32_t* counts) {
  extern __shared__ Four sums[];
  constexpr int kSize = kColumns<T>;
  constexpr int kPanel = 32 * kSize;
  const int lane = static_cast<int>(threadIdx.x);
  const int64_t number = blockIdx.x / panels;
  const int64_t first = int64_t{blockIdx.x % panels} * kPanel;
  const int64_t begin = number * span_rows;
  const Span span{labels, begin, begin + span_rows < features.rows ? begin + span_rows : features.rows};
  const auto num_classes = static_cast<int32_t>(labels.num_classes);
  int32_t counted = 0;  // of class `lane`
  int32_t next_class = batch_class(span, begin, lane);
  Wide<T> next[kBatchRows];
  load_batch<T>(features, span, begin, first, lane, next);
  for (int64_t row = begin; row < span.end; row += kBatchRows) {
    const int32_t batch = next_class;
    Wide<T> x[kBatchRows];
#pragma unroll
    for (int i = 0; i < kBatchRows; ++i) x[i] = next[i];
    if (row + kBatchRows < span.end) {  // asked for before the sums need their processor
      next_class = batch_class(span, row + kBatchRows, lane);
      load_batch<T>(features, span, row + kBatchRows, first, lane, next);
    }
    for (unsigned left = __ballot_sync(kAll, batch < num_classes); left != 0;) {
      const int32_t c = __shfl_sync(kAll, batch, __ffs(static_cast<int>(left)) - 1);
      const unsigned rows = __ballot_sync(kAll, batch == c);
      left &= ~rows;
      Four* const shifts = sums_of<kSize>(sums, c, kShift, lane);
      Four* const deviations = sums_of<kSize>(sums, c, kOfDeviations, lane);
      Four* const squares = sums_of<kSize>(sums, c, kOfSquares, lane);
      float shift[kSize], s[kSize], q[kSize];
      if (__shfl_sync(kAll, counted, c) == 0) {
        const float share = 1.0f / static_cast<float>(__popc(rows));
#pragma unroll
        for (int k = 0; k < kSize; ++k) shift[k] = s[k] = q[k] = 0;
#pragma unroll
        for (int i = 0; i < kBatchRows; ++i) {
          if ((rows >> i & 1u) != 0) {
#pragma unroll
            for (int k = 0; k < kSize; ++k) shift[k] += to_real(x[i].value[k]);
          }
        }
#pragma unroll
        for (int k = 0; k < kSize; ++k) shift[k] *= share;
        store<kSize>(shifts, shift);
      } else {
        load<kSize>(shifts, shift);
        load<kSize>(deviations, s);
        load<kSize>(squares, q);
      }
#pragma unroll
      for (int i = 0; i < kBatchRows; ++i) {
        if ((rows >> i & 1u) != 0) {
#pragma unroll
          for (int k = 0; k < kSize; ++k) {
            const float d = to_real(x[i].value[k]) - shift[k];
            s[k] += d;
            q[k] += d * d;
          }
        }
      }
      store<kSize>(deviations, s);
      store<kSize>(squares, q);
      if (lane == c) counted += __popc(rows);
    }
  }
  if (first == 0 && lane < num_classes) counts[number * num_classes + lane] = counted;
  for (int32_t c = 0; c < num_classes; ++c) {
    const int32_t rows = __shfl_sync(kAll, counted, c);
    if (rows == 0) continue;
    float shift[kSize], s[kSize], q[kSize];
    load<kSize>(sums_of<kSize>(sums, c, kShift, lane), shift);
    load<kSize>(sums_of<kSize>(sums, c, kOfDeviations, lane), s);
    load<kSize>(sums_of<kSize>(sums, c, kOfSquares, lane), q);
    const auto n = static_cast<float>(rows);
    double mean[kSize], m2[kSize];
    bool bad = false;
#pragma unroll
    for (int k = 0; k < kSize; ++k) {
      const float offset = s[k] / n;
      const float squares = q[k] - s[k] * offset;
      mean[k] = static_cast<double>(shift[k]) + static_cast<double>(offset);
      m2[k] = squares < 0 ? 0 : squares;  // rounding may leave a hair below zero; NaN stays
      bad = bad || !is_finite(m2[k]);
    }
    if (__any_sync(kAll, bad)) {
      sums_by_definition<T>(features, span, c, first, lane, nullptr, mean);
#pragma unroll
      for (int k = 0; k < kSize; ++k) mean[k] /= static_cast<double>(rows);
      sums_by_definition<T>(features, span, c, first, lane, mean, m2);
    }
#pragma unroll
    for (int k = 0; k < kSize; ++k) {
      const int64_t column = column_of<T, true>(first, lane, k);
      if (column < features.columns) {
        partial.store(number * num_classes + c, column, {static_cast<double>(rows), mean[k], m2[k]});
      }
    }
  }
}

constexpr int kMergingWarps = 8;

/// Merges what spans have of one class in 32 columns; a warp takes every kMergingWarps-th span.
__global__ void __launch_bounds__(32 * kMergingWarps)
    merge_spans(int64_t spans, int num_classes, const int32_t* counts, const int64_t* count, unsigned panels,
                Results<float> results, Partial<float> partial) {
  __shared__ Merger merged_by[kMergingWarps * 32];
  const int64_t c = blockIdx.x / panels;
  const int64_t column = int64_t{blockIdx.x % panels} * 32 + threadIdx.x % 32;
  const bool there = column < results.columns;
  const auto warp = static_cast<int>(threadIdx.x / 32);
  int64_t first = 0;
  while (first < spans && counts[first * num_classes + c] == 0) ++first;
  if (first == spans) {
    if (results.fresh && warp == 0 && there) results.store(c, 0, column, {});
    return;
  }
  Merger merger = merger_from(there ? partial.load(first * num_classes + c, column, 0).mean : 0);
  if (there) {
    for (int64_t k = first + warp; k < spans; k += kMergingWarps) {
      const int32_t rows = counts[k * num_classes + c];
      if (rows > 0) merger.add(partial.load(k * num_classes + c, column, rows));
    }
  }
  merged_by[threadIdx.x] = merger;
  __syncthreads();
  if (warp != 0 || !there) return;
  for (int other = 1; other < kMergingWarps; ++other) merger.add(merged_by[other * 32 + threadIdx.x]);
  results.store(c, results.fresh ? 0 : count[c], column, merger.result());
}

/// Adds what spans have counted to `count`, or sets it: a block a class, when no other needs what it was.
__global__ void __launch_bounds__(32)
    count_spans(int64_t spans, int num_classes, const int32_t* counts, int64_t* count, bool fresh) {
  const int64_t c = blockIdx.x;
  int32_t rows = 0;
  for (int64_t k = threadIdx.x; k < spans; k += 32) rows += counts[k * num_classes + c];
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) rows += __shfl_down_sync(kAll, rows, apart);
  if (threadIdx.x == 0) count[c] = (fresh ? 0 : count[c]) + rows;
}

template <class T>
void launch(const Matrix& features, const Labels& labels, const MomentsMemory& moments, bool fresh,
            const PrivatePlan& plan, char* memory, cudaStream_t stream) {
  auto* counts = reinterpret_cast<int32_t*>(memory + plan.counts_at);
  const auto num_classes = static_cast<int>(labels.num_classes);
  const Partial<float> partial{reinterpret_cast<float*>(memory + plan.partial_at), features.columns};
  const Results<float> results{static_cast<float*>(moments.mean), static_cast<float*>(moments.m2), features.columns,
                               fresh};
  const auto panels = static_cast<unsigned>(plan.panels);
  const unsigned blocks = static_cast<unsigned>(plan.spans) * panels;
  const auto shared = static_cast<size_t>(plan.bytes_of_sums);
  moments_of_spans<T><<<blocks, 32, shared, stream>>>(features, labels, plan.span_rows, panels, partial, counts);
  const auto columns = static_cast<unsigned>((features.columns + 31) / 32);
  const unsigned merging = columns * static_cast<unsigned>(num_classes);
  merge_spans<<<merging, 32 * kMergingWarps, 0, stream>>>(plan.spans, num_classes, counts, moments.count, columns,
                                                          results, partial);
  const auto classes = static_cast<unsigned>(num_classes);
  count_spans<<<classes, 32, 0, stream>>>(plan.spans, num_classes, counts, moments.count, fresh);
}

}  // namespace

void class_moments_private(const Matrix& features, const Labels& labels, const MomentsMemory& moments, bool fresh,
                           const PrivatePlan& plan, char* memory, cudaStream_t stream) {
  switch (features.type) {
    case ElementType::float64: break;  // its sums are twice as large: never planned
    case ElementType::float32: launch<float>(features, labels, moments, fresh, plan, memory, stream); break;
    case ElementType::bfloat16: launch<Bfloat16>(features, labels, moments, fresh, plan, memory, stream); break;
    case ElementType::float16: launch<Float16>(features, labels, moments, fresh, plan, memory, stream); break;
  }
}

}  // namespace imbdyn
