#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "cuda/parameter_norms.h"
#include "cuda/parameter_norms_chunk.h"

namespace imbdyn {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kNorms = 4;
constexpr int kRowsOfBlock = kThreads / kNorms;

/// Returns the sum over the block in threads 0 to 3, one of the four sums each; the order is fixed.
__device__ double block_sum(const Sums& sums) {
  __shared__ double of_warp[kWarps][kNorms];
  double four[kNorms] = {sums.w_w, sums.grad_grad, sums.dw_dw, sums.w_dw};
#pragma unroll
  for (int k = 0; k < kNorms; ++k) {
#pragma unroll
    for (int apart = 16; apart > 0; apart /= 2) four[k] += __shfl_down_sync(0xffffffffu, four[k], apart);
  }
  if (threadIdx.x % 32 == 0) {
#pragma unroll
    for (int k = 0; k < kNorms; ++k) of_warp[threadIdx.x / 32][k] = four[k];
  }
  __syncthreads();
  double total = 0;
  if (threadIdx.x < kNorms) {
    for (int warp = 0; warp < kWarps; ++warp) total += of_warp[warp][threadIdx.x];
  }
  return total;
}

/// partial[chunk] = (sum w^2, sum grad^2, sum dw^2, sum w dw); NaN for what was not given.
__global__ void __launch_bounds__(kThreads) sum_chunks(const Chunk* chunks, double* partial) {
  const Chunk chunk = chunks[blockIdx.x];
  const double total = block_sum(sum_chunk(chunk, static_cast<int>(threadIdx.x), kThreads));
  if (threadIdx.x < kNorms) {
    const int which = threadIdx.x == 0 ? 0 : threadIdx.x == 1 ? 1 : 2;
    partial[int64_t{blockIdx.x} * kNorms + threadIdx.x] = type_of(chunk, which) < 0 ? nan("") : total;
  }
}

__device__ double norm(double sum, int which) { return which < 3 ? sqrt(sum) : sum; }

/// A block adds up the chunks of a tensor, or of kRowsOfBlock rows, which have few.
__global__ void __launch_bounds__(kThreads)
    add_chunks(NormsTable table, const double* partial, double* tensors, double* rows) {
  const int64_t* ends = table.numbers + kNorms * table.chunks;
  const int64_t block = blockIdx.x;
  if (block < table.tensors) {
    Sums sums{0, 0, 0, 0};
    const int64_t end = ends[2 * block + 1];
    for (int64_t i = ends[2 * block] + threadIdx.x; i < end; i += kThreads) {
      sums.w_w += partial[kNorms * i];
      sums.grad_grad += partial[kNorms * i + 1];
      sums.dw_dw += partial[kNorms * i + 2];
      sums.w_dw += partial[kNorms * i + 3];
    }
    const double total = block_sum(sums);
    if (threadIdx.x < kNorms) tensors[kNorms * block + threadIdx.x] = norm(total, static_cast<int>(threadIdx.x));
    return;
  }
  const int64_t row = (block - table.tensors) * kRowsOfBlock + threadIdx.x / kNorms;
  if (row >= table.rows) return;
  const int which = threadIdx.x % kNorms;
  const int64_t* of_row = ends + 2 * (table.tensors + row);
  double total = 0;
  for (int64_t i = of_row[0]; i < of_row[1]; ++i) total += partial[kNorms * i + which];
  rows[kNorms * row + which] = norm(total, which);
}

}  // namespace

void parameter_norms_cuda(const NormsTable& table, double* partial, double* tensors, double* rows, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t row_blocks = (table.rows + kRowsOfBlock - 1) / kRowsOfBlock;
  if (table.tensors == 0) return;
  sum_chunks<<<static_cast<unsigned>(table.chunks), kThreads, 0, on>>>(reinterpret_cast<const Chunk*>(table.numbers),
                                                                       partial);
  add_chunks<<<static_cast<unsigned>(table.tensors + row_blocks), kThreads, 0, on>>>(table, partial, tensors, rows);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string("parameter_norms could not be launched: ") + cudaGetErrorString(error));
  }
}

}  // namespace imbdyn
