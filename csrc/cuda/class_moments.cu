#include <cuda_runtime.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "cuda/class_moments.h"
#include "cuda/class_moments_order.h"
#include "cuda/class_moments_plan.h"
#include "cuda/class_moments_private.h"
#include "cuda/class_moments_results.h"

namespace imbdyn {
namespace {

/// Warps that a multiprocessor is to hold at a time, which bounds their registers. (For Blackwell's the compiler needs
/// more of them.)
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
template <bool kWide>
constexpr int kResidentWarps = 16;
#else
template <bool kWide>
constexpr int kResidentWarps = kWide ? 24 : 16;
#endif

/// The moments of one line and one panel of columns: of a class into the results, of a chunk into `partial`.
///
/// kAcross warps lie side by side and take 512 bytes of a row each, a lane 16 of them; kDown share the rows.
template <class T, bool kWide, int kDown, int kAcross>
__global__ void __launch_bounds__(32 * kDown * kAcross, kResidentWarps<kWide> / (kDown * kAcross))
    moments_of_lines(Matrix features, const int32_t* order, const Line* lines, int64_t chunk_lines, Chunking chunking,
                     bool by_class, unsigned panels, Results<Real<T>> results, Partial<Real<T>> partial) {
  constexpr int kSize = kColumns<T>;
  constexpr int kPanel = 32 * kSize * kAcross;
  constexpr int kThreads = 32 * kDown * kAcross;
  __shared__ double means[kDown][kPanel];
  __shared__ Real<T> squares[kDown][kPanel];
  const int64_t number = blockIdx.x / panels;
  const int64_t panel = int64_t{blockIdx.x % panels} * kPanel;
  const Line line = lines[number];
  const bool of_chunk = number < chunk_lines;
  int64_t begin = line.start, rows = line.rows;
  if (of_chunk && rows > 0) {
    const int64_t done = chunking.rows_before(number, line.start);
    begin += done;
    rows = rows - done < chunking.rows() ? rows - done : chunking.rows();
  }
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int down = warp / kAcross;
  const int in_panel = warp % kAcross * 32 * kSize;  // where the warp's columns begin
  const int64_t first = panel + in_panel;
  const int64_t columns = features.columns;
  if (rows == 0) {
    if (results.fresh && by_class && !of_chunk) {
      for (int64_t j = panel + threadIdx.x; j < panel + kPanel && j < columns; j += kThreads) {
        results.mean[(number - chunk_lines) * columns + j] = 0;
        results.m2[(number - chunk_lines) * columns + j] = 0;
      }
    }
    return;
  }
  if (!of_chunk && rows > chunking.rows()) return;  // by its chunks

  const Share share{order + begin, static_cast<int32_t>(rows), down, kDown};
  bool bad = false;
  if (size_of(share) > 0) {
    double mean[kSize];
    Real<T> m2[kSize];
    lane_moments<T, kWide>(features, share, first, lane, mean, m2);
#pragma unroll
    for (int k = 0; k < kSize; ++k) {
      const auto j = column_of<T, kWide>(in_panel, lane, k);
      means[down][j] = mean[k];
      squares[down][j] = m2[k];
      bad = bad || !is_finite(m2[k]);
    }
  }
  bad = __syncthreads_or(bad);
  if (bad) {
    // Infinities, NaN and sums that overflow come out as the definition has them, in two passes of float64.
    double sums[kSize], mean[kSize];
    lane_sums<T, kWide>(features, share, first, lane, nullptr, sums);
#pragma unroll
    for (int k = 0; k < kSize; ++k) means[down][column_of<T, kWide>(in_panel, lane, k)] = sums[k];
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kSize; ++k) {
      double sum = 0;
      for (int other = 0; other < kDown; ++other) sum += means[other][column_of<T, kWide>(in_panel, lane, k)];
      mean[k] = sum / static_cast<double>(rows);
    }
    lane_sums<T, kWide>(features, share, first, lane, mean, sums);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kSize; ++k) {
      const auto j = column_of<T, kWide>(in_panel, lane, k);
      means[down][j] = mean[k];
      squares[down][j] = static_cast<Real<T>>(sums[k]);
    }
    __syncthreads();
  }
  for (int j = static_cast<int>(threadIdx.x); j < kPanel && panel + j < columns; j += kThreads) {
    const Moments moments = merge_shares(share, kDown, &means[0][j], &squares[0][j], kPanel);
    if (of_chunk) {
      partial.store(number, panel + j, moments);
    } else {
      results.store(line.c, line.before, panel + j, moments);
    }
  }
}

constexpr int kMergingWarps = 8;

/// Merges the chunks of one class in 32 columns; a warp takes every kMergingWarps-th. The class is given by its number
/// (`of_classes`), or as the one of more than one chunk that begins in a window, if one does.
template <class A>
__global__ void __launch_bounds__(32 * kMergingWarps)
    merge_chunks(const Line* lines, int64_t chunk_lines, Chunking chunking, bool by_class, bool of_classes,
                 unsigned panels, Results<A> results, Partial<A> partial) {
  const int64_t number = blockIdx.x / panels;
  const Line found = lines[of_classes ? chunk_lines + number : 2 * number + 1];
  if (found.rows <= chunking.rows()) return;
  const Line line = of_classes ? found : lines[chunk_lines + (by_class ? found.c : found.start)];
  const int64_t window = line.start >> chunking.bits;
  __shared__ Merger merged_by[kMergingWarps * 32];
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int64_t column = int64_t{blockIdx.x % panels} * 32 + threadIdx.x % 32;
  const bool there = column < results.columns;
  const int64_t chunks = chunking.chunks(line.rows);
  Merger merger = merger_from(there ? partial.load(2 * window + 1, column, 0).mean : 0);
  if (there) {
    for (int64_t k = warp; k < chunks; k += kMergingWarps) {
      const int64_t left = line.rows - (k << chunking.bits);
      const auto n = static_cast<double>(left < chunking.rows() ? left : chunking.rows());
      merger.add(partial.load(2 * (window + k) + (k == 0 ? 1 : 0), column, n));
    }
  }
  merged_by[threadIdx.x] = merger;
  __syncthreads();
  if (warp != 0 || !there) return;
  for (int other = 1; other < kMergingWarps; ++other) merger.add(merged_by[other * 32 + threadIdx.x]);
  results.store(line.c, line.before, column, merger.result());
}

template <class T, bool kWide, int kDown, int kAcross>
void launch_lines(const Matrix& features, const Plan& plan, char* memory, const Results<Real<T>>& results,
                  const Partial<Real<T>>& partial, cudaStream_t stream) {
  constexpr int64_t kPanel = 32 * kColumns<T> * kAcross;
  const auto panels = static_cast<unsigned>((features.columns + kPanel - 1) / kPanel);
  const unsigned blocks = static_cast<unsigned>(plan.lines) * panels;
  const auto* order = reinterpret_cast<const int32_t*>(memory + plan.order_at);
  const auto* lines = reinterpret_cast<const Line*>(memory + plan.lines_at);
  moments_of_lines<T, kWide, kDown, kAcross><<<blocks, 32 * kDown * kAcross, 0, stream>>>(
      features, order, lines, 2 * plan.windows, plan.chunking, plan.by_class, panels, results, partial);
}

/// Whether rows lie in pieces of 16 bytes, of so many columns.
bool lies_in_pieces(const Matrix& features, int64_t columns) {
  return features.column_stride == 1 && features.columns % columns == 0 && features.row_stride % columns == 0 &&
         reinterpret_cast<uintptr_t>(features.data) % 16 == 0;
}

template <class T>
void launch(const Matrix& features, const Plan& plan, const MomentsMemory& moments, bool fresh, char* memory,
            cudaStream_t stream) {
  using A = Real<T>;
  const Results<A> results{static_cast<A*>(moments.mean), static_cast<A*>(moments.m2), features.columns, fresh};
  const Partial<A> partial{reinterpret_cast<A*>(memory + plan.partial_at), features.columns};
  constexpr int64_t kSize = kColumns<T>;
  const bool wide = lies_in_pieces(features, kSize);
  const int64_t classes = plan.lines - 2 * plan.windows;
  const bool few_rows = features.rows < 8 * classes;  // of a class
  const bool narrow = features.columns <= 2 * 32 * kSize || !plan.many_blocks;
  if (!wide) {
    launch_lines<T, false, 8, 1>(features, plan, memory, results, partial, stream);
  } else if (narrow && few_rows) {
    launch_lines<T, true, 2, 1>(features, plan, memory, results, partial, stream);
  } else if (narrow) {
    launch_lines<T, true, 8, 1>(features, plan, memory, results, partial, stream);
  } else if (few_rows) {
    launch_lines<T, true, 1, 4>(features, plan, memory, results, partial, stream);
  } else {
    launch_lines<T, true, 4, 2>(features, plan, memory, results, partial, stream);
  }
  if (plan.windows > 0) {
    const auto panels = static_cast<unsigned>((features.columns + 31) / 32);
    const bool of_classes = plan.by_class && classes < plan.windows;
    const unsigned blocks = static_cast<unsigned>(of_classes ? classes : plan.windows) * panels;
    const auto* lines = reinterpret_cast<const Line*>(memory + plan.lines_at);
    merge_chunks<A><<<blocks, 32 * kMergingWarps, 0, stream>>>(lines, 2 * plan.windows, plan.chunking, plan.by_class,
                                                               of_classes, panels, results, partial);
  }
}

int64_t element_bytes(ElementType type) {
  return type == ElementType::float64 ? 8 : type == ElementType::float32 ? 4 : 2;
}

int64_t real_bytes(ElementType type) { return type == ElementType::float64 ? 8 : 4; }

/// The way of few classes; it does not fit for float64, whose sums are twice as large.
PrivatePlan plan_private(int64_t rows, int64_t columns, int64_t num_classes, ElementType type) {
  return type == ElementType::float64 ? PrivatePlan{}
                                      : make_private_plan(rows, columns, num_classes, 16 / element_bytes(type));
}

/// Rows ordered by class, and then read once.
void by_order(const Matrix& features, const Labels& labels, const MomentsMemory& moments, bool fresh, char* memory,
              cudaStream_t on) {
  const ElementType type = features.type;
  const Plan plan =
      make_plan(features.rows, features.columns, labels.num_classes, element_bytes(type), real_bytes(type));
  // Where every class has a block, that writes zeros for an absent one; where a launch knows all classes, it counts it.
  if (fresh && (!plan.by_class || plan.passes > 1 || features.rows == 0)) {
    cudaMemsetAsync(moments.count, 0, static_cast<size_t>(labels.num_classes) * sizeof(int64_t), on);
  }
  // without columns there is no memory, and CUDA does not say what it does with none
  if (fresh && features.columns > 0 && (!plan.by_class || features.rows == 0)) {
    const auto bytes = static_cast<size_t>(labels.num_classes * features.columns * real_bytes(type));
    cudaMemsetAsync(moments.mean, 0, bytes, on);
    cudaMemsetAsync(moments.m2, 0, bytes, on);
  }
  if (features.rows > 0) {
    order_by_class(labels, features.rows, plan, moments.count, fresh, memory, on);
    if (features.columns > 0) {
      switch (type) {
        case ElementType::float64: launch<double>(features, plan, moments, fresh, memory, on); break;
        case ElementType::float32: launch<float>(features, plan, moments, fresh, memory, on); break;
        case ElementType::bfloat16: launch<Bfloat16>(features, plan, moments, fresh, memory, on); break;
        case ElementType::float16: launch<Float16>(features, plan, moments, fresh, memory, on); break;
      }
    }
  }
}

}  // namespace

int64_t class_moments_cuda_bytes(int64_t rows, int64_t columns, int64_t num_classes, ElementType type) {
  const int64_t ordered = make_plan(rows, columns, num_classes, element_bytes(type), real_bytes(type)).bytes;
  return std::max(ordered, plan_private(rows, columns, num_classes, type).bytes);
}

void class_moments_cuda(const Matrix& features, const Labels& labels, const MomentsMemory& moments, bool fresh,
                        void* memory, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const ElementType type = features.type;
  auto* const bytes = static_cast<char*>(memory);
  const PrivatePlan few = plan_private(features.rows, features.columns, labels.num_classes, type);
  if (few.fits && lies_in_pieces(features, 16 / element_bytes(type))) {
    class_moments_private(features, labels, moments, fresh, few, bytes, on);
  } else {
    by_order(features, labels, moments, fresh, bytes, on);
  }
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string("class_moments could not be launched: ") + cudaGetErrorString(error));
  }
}

}  // namespace imbdyn
