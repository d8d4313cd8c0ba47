#include <cuda_runtime.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "cuda/class_logits.h"
#include "cuda/class_logits_row.h"

namespace imbdyn {
namespace {

constexpr unsigned kAll = 0xffffffffu;

/// Rows of a tile, a row a thread: a block is one warp, and waits for nothing but its own loads.
constexpr int kTileRows = 32;
constexpr int kFields = 8;

/// Columns of a thread, where it adds up e.
constexpr int kColumnsOfThread = static_cast<int>(kMostLogits) / 32;

/// What shared memory is counted in, and what a load brings.
struct alignas(16) Sixteen {
  uint32_t word[4];
};

/// Asks for 16 bytes, which are there after `arrived`.
__device__ inline void ask_for(Sixteen* to, const Sixteen* from) {
#if defined(__CUDA_ARCH__)
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
#else
  *to = *from;
#endif
}

/// Ends what is asked for together.
__device__ inline void asked() {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/// Waits for all that a thread has asked for but the last that it asked for together.
__device__ inline void arrived() {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.wait_group 1;" ::: "memory");
#endif
}

/// A block's shared memory: two tiles, e where it has a place of its own, scale [32], then by class three sums in
/// float64 and three counts.
template <class T, int V>
struct Shared {
  Layout<T, V> layout;

  __host__ __device__ int tile_bytes() const { return kTileRows * layout.z_stride() * static_cast<int>(sizeof(T)); }
  __host__ __device__ int e_at() const { return 2 * tile_bytes(); }
  __host__ __device__ int scale_at() const {
    return e_at() + (Layout<T, V>::kInPlace ? 0 : kTileRows * layout.e_stride() * static_cast<int>(sizeof(float)));
  }
  __host__ __device__ int sums_at() const { return scale_at() + kTileRows * static_cast<int>(sizeof(float)); }
  __host__ __device__ int bytes() const { return sums_at() + layout.classes * 3 * (8 + 4); }
};

/// Asks for the rows of a tile.
template <class T, int V>
__device__ void ask_for_tile(const Layout<T, V>& layout, const T* from, int rows, T* to, int lane) {
  constexpr int kSixteen = 16 / sizeof(T);
  const int elements = rows * layout.classes;
  const int stride = layout.z_stride();
  for (int i = lane * kSixteen; i + kSixteen <= elements; i += 32 * kSixteen) {
    // rows that are not apart as they are in memory are whole loads
    const int at = stride == layout.classes ? i : i / layout.classes * stride + i % layout.classes;
    ask_for(reinterpret_cast<Sixteen*>(to + at), reinterpret_cast<const Sixteen*>(from + i));
  }
  // what is left of the last tile, if its rows are no whole loads
  for (int i = elements / kSixteen * kSixteen + lane; i < elements; i += 32) to[i] = from[i];
  asked();
}

/// Adds rows to the sums of their labels, those of one label in their order.
__device__ void add_in_order(double* sums, int classes, int y, const RowSums& row) {
  const unsigned same = __match_any_sync(kAll, y);
  const int turn = __popc(same & ((1u << (threadIdx.x % 32)) - 1));
  for (int now = 0; __any_sync(kAll, y >= 0 && turn >= now); ++now) {
    if (y >= 0 && turn == now) {
      sums[y] += static_cast<double>(row.loss);
      sums[classes + y] += static_cast<double>(row.margin);
      sums[2 * classes + y] += static_cast<double>(row.confidence);
    }
    __syncwarp();
  }
}

/// Sums tiles blockIdx.x, blockIdx.x + programs, ... of 32 rows to `parts` [programs, 8, C].
template <class T, int V>
__global__ void __launch_bounds__(32)
    sum_tiles(const T* logits, Labels labels, int64_t rows, int64_t programs, double* parts) {
  extern __shared__ Sixteen memory[];
  const int classes = static_cast<int>(labels.num_classes);
  const Shared<T, V> shared{{classes}};
  char* bytes = reinterpret_cast<char*>(memory);
  auto* scale = reinterpret_cast<float*>(bytes + shared.scale_at());
  auto* sums = reinterpret_cast<double*>(bytes + shared.sums_at());
  auto* counts = reinterpret_cast<int32_t*>(sums + 3 * classes);
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 3 * classes; i += 32) {
    sums[i] = 0;
    counts[i] = 0;
  }
  // where there are few classes, groups of threads share the rows of a tile
  const int groups = classes < 32 ? 32 / classes : 1;
  const int group = lane / (classes < 32 ? classes : 32);
  const int column = lane % (classes < 32 ? classes : 32);
  double negative[kColumnsOfThread] = {};

  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  const auto rows_of = [&](int64_t tile) {
    const int64_t left = rows - tile * kTileRows;
    return static_cast<int>(left < kTileRows ? left : kTileRows);
  };
  const auto label_of = [&](int64_t tile) -> int {
    const int64_t n = tile * kTileRows + lane;
    const int64_t label = tile < tiles && n < rows ? labels.data[n * labels.stride] : -1;
    return label >= 0 && label < classes && label != labels.ignore_index ? static_cast<int>(label) : -1;
  };
  int stage = 0;
  const auto tile_at = [&](int which) { return reinterpret_cast<T*>(bytes + which * shared.tile_bytes()); };
  int64_t tile = blockIdx.x;
  int next_label = label_of(tile);
  if (tile < tiles) {
    ask_for_tile<T, V>(shared.layout, logits + tile * kTileRows * classes, rows_of(tile), tile_at(0), lane);
  }
  for (; tile < tiles; tile += programs, stage ^= 1) {
    const int64_t next = tile + programs;
    const int y = next_label;
    if (next < tiles) {
      ask_for_tile<T, V>(shared.layout, logits + next * kTileRows * classes, rows_of(next), tile_at(stage ^ 1), lane);
    } else {
      asked();
    }
    next_label = label_of(next);
    arrived();
    __syncwarp();
    const int there = rows_of(tile);
    T* z = tile_at(stage) + lane * shared.layout.z_stride();
    char* e_of_tile = Layout<T, V>::kInPlace ? reinterpret_cast<char*>(tile_at(stage)) : bytes + shared.e_at();
    auto* all_e = reinterpret_cast<float*>(e_of_tile);
    float* e = all_e + lane * shared.layout.e_stride();
    RowSums row{0, 0, 0, 0, 0};
    if (y >= 0) {
      row = read_row<T, V>(z, classes, y, e, logits + (tile * kTileRows + lane) * classes);
      atomicAdd(&counts[y], 1);  // whole numbers, in any order
      if (row.prediction == y) atomicAdd(&counts[classes + y], 1);
      atomicAdd(&counts[2 * classes + row.prediction], 1);
    } else if (lane < there) {
      for (int k = 0; k < classes; ++k) e[k] = 0;
    }
    scale[lane] = row.scale;
    add_in_order(sums, classes, y, row);
    __syncwarp();
    if (group < groups) {
      const float* at = all_e + group * shared.layout.e_stride() + column;
      const int step = groups * shared.layout.e_stride();
      float total[kColumnsOfThread] = {};
#pragma unroll 4
      for (int r = group; r < there; r += groups, at += step) {
        const float scale_of_row = scale[r];
#pragma unroll
        for (int j = 0; j < kColumnsOfThread; ++j) {
          if (column + 32 * j < classes) total[j] += at[32 * j] * scale_of_row;
        }
      }
#pragma unroll
      for (int j = 0; j < kColumnsOfThread; ++j) negative[j] += static_cast<double>(total[j]);
    }
    __syncwarp();
  }
  double* part = parts + int64_t{blockIdx.x} * kFields * classes;
  for (int k = lane; k < classes; k += 32) {
    const double count = counts[k];
    part[k] = count;
    part[classes + k] = sums[k];
    part[2 * classes + k] = counts[classes + k];
    part[3 * classes + k] = sums[classes + k];
    part[4 * classes + k] = sums[2 * classes + k];
    part[5 * classes + k] = counts[2 * classes + k];
    part[6 * classes + k] = count - sums[2 * classes + k];
  }
  __syncwarp();
  for (int now = 0; now < groups; ++now) {  // the sums of groups one after the other, where sums of the loss were
    if (group == now) {
#pragma unroll
      for (int j = 0; j < kColumnsOfThread; ++j) {
        const int k = column + 32 * j;
        if (k < classes) sums[k] = (now == 0 ? 0 : sums[k]) + negative[j];
      }
    }
    __syncwarp();
  }
  for (int k = lane; k < classes; k += 32) part[7 * classes + k] = sums[k];
}

constexpr int kAddingThreads = 512;
constexpr int kAddedColumns = 8;

/// sums[i] += the sum over `parts` [programs, width], in one order; a block takes kAddedColumns of `width`.
__global__ void __launch_bounds__(kAddingThreads)
    add_parts(double* sums, const double* parts, int64_t programs, int64_t width) {
  constexpr int kApart = kAddingThreads / kAddedColumns;
  __shared__ double of_thread[kAddingThreads];
  const int64_t i = int64_t{blockIdx.x} * kAddedColumns + threadIdx.x % kAddedColumns;
  double total = 0;
#pragma unroll 4
  for (int64_t p = threadIdx.x / kAddedColumns; p < programs; p += kApart) {
    if (i < width) total += parts[p * width + i];
  }
  of_thread[threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.x >= kAddedColumns || i >= width) return;
  total = 0;
  for (int k = 0; k < kApart; ++k) total += of_thread[k * kAddedColumns + static_cast<int>(threadIdx.x)];
  sums[i] += total;
}

/// Neighbours of a row that are read at once: as many as a row is made of.
int piece_of(int64_t num_classes, int64_t element_bytes) {
  int64_t piece = 1;
  while (2 * piece * element_bytes <= 16 && num_classes % (2 * piece) == 0) piece *= 2;
  return static_cast<int>(piece);
}

template <class T, int V>
int64_t shared_bytes(int64_t num_classes) {
  return Shared<T, V>{{static_cast<int>(num_classes)}}.bytes();
}

template <class T>
int64_t shared_bytes_of(int64_t num_classes) {
  switch (piece_of(num_classes, sizeof(T))) {
    case 1: return shared_bytes<T, 1>(num_classes);
    case 2: return shared_bytes<T, 2>(num_classes);
    case 4: return shared_bytes<T, 4>(num_classes);
    default: return shared_bytes<T, 16 / sizeof(T)>(num_classes);
  }
}

constexpr int64_t kMostBlocks = 24;       // of a multiprocessor, whose registers are enough for 25
constexpr int64_t kReservedBytes = 1024;  // of shared memory, a block

int64_t programs_of(int64_t rows, int64_t num_classes, ElementType type, const Processors& processors) {
  const int64_t bytes =
      type == ElementType::float32 ? shared_bytes_of<float>(num_classes) : shared_bytes_of<Bfloat16>(num_classes);
  const int64_t of_one = std::clamp(processors.shared_bytes / (bytes + kReservedBytes), int64_t{1}, kMostBlocks);
  return std::min((rows + kTileRows - 1) / kTileRows, of_one * processors.count);
}

template <class T, int V>
void launch(const Matrix& logits, const Labels& labels, int64_t programs, double* parts, cudaStream_t stream) {
  const auto bytes = static_cast<size_t>(shared_bytes<T, V>(labels.num_classes));
  const auto* data = static_cast<const T*>(logits.data);
  sum_tiles<T, V><<<static_cast<unsigned>(programs), 32, bytes, stream>>>(data, labels, logits.rows, programs, parts);
}

template <class T>
void launch_for(const Matrix& logits, const Labels& labels, int64_t programs, double* parts, cudaStream_t stream) {
  switch (piece_of(labels.num_classes, sizeof(T))) {
    case 1: return launch<T, 1>(logits, labels, programs, parts, stream);
    case 2: return launch<T, 2>(logits, labels, programs, parts, stream);
    case 4: return launch<T, 4>(logits, labels, programs, parts, stream);
    default: return launch<T, 16 / sizeof(T)>(logits, labels, programs, parts, stream);
  }
}

}  // namespace

int64_t class_logits_cuda_bytes(int64_t rows, int64_t num_classes, ElementType type, const Processors& processors) {
  return programs_of(rows, num_classes, type, processors) * kFields * num_classes *
         static_cast<int64_t>(sizeof(double));
}

void add_class_logits_cuda(double* sums, const Matrix& logits, const Labels& labels, const Processors& processors,
                           double* memory, void* stream) {
  if (logits.rows == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t programs = programs_of(logits.rows, labels.num_classes, logits.type, processors);
  switch (logits.type) {
    case ElementType::float64: throw std::runtime_error("class_logits has no CUDA kernel for float64");
    case ElementType::float32: launch_for<float>(logits, labels, programs, memory, on); break;
    case ElementType::bfloat16: launch_for<Bfloat16>(logits, labels, programs, memory, on); break;
    case ElementType::float16: launch_for<Float16>(logits, labels, programs, memory, on); break;
  }
  const int64_t width = kFields * labels.num_classes;
  const auto blocks = static_cast<unsigned>((width + kAddedColumns - 1) / kAddedColumns);
  add_parts<<<blocks, kAddingThreads, 0, on>>>(sums, memory, programs, width);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string("class_logits could not be launched: ") + cudaGetErrorString(error));
  }
}

}  // namespace imbdyn
