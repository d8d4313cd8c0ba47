#include <cuda_runtime.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "cuda/class_moments.h"
#include "cuda/class_moments_column.h"

namespace imbdyn {
namespace {

constexpr int kThreads = 128;
constexpr int64_t kMostBlocksY = 65535;

/// A block takes one class (x) and panels of kThreads columns (y), a thread one column: neighbours read neighbours.
template <class T>
__global__ void class_moments_kernel(Matrix features, const int64_t* order, const int64_t* start, Real<T>* mean,
                                     Real<T>* m2) {
  const int64_t c = blockIdx.x;
  const int64_t begin = start[c];
  const int64_t count = start[c + 1] - begin;
  if (count == 0) return;
  const int64_t step = int64_t{gridDim.y} * kThreads;
  for (int64_t column = int64_t{blockIdx.y} * kThreads + threadIdx.x; column < features.columns; column += step) {
    double column_mean, column_m2;
    column_moments<T>(features, order + begin, count, column, &column_mean, &column_m2);
    mean[c * features.columns + column] = static_cast<Real<T>>(column_mean);
    m2[c * features.columns + column] = static_cast<Real<T>>(column_m2);
  }
}

template <class T>
void launch(const Matrix& features, const int64_t* order, const int64_t* start, int64_t num_classes, void* mean,
            void* m2, cudaStream_t stream) {
  const int64_t panels = (features.columns + kThreads - 1) / kThreads;
  const dim3 grid(static_cast<unsigned>(num_classes), static_cast<unsigned>(std::min(panels, kMostBlocksY)));
  class_moments_kernel<T>
      <<<grid, kThreads, 0, stream>>>(features, order, start, static_cast<Real<T>*>(mean), static_cast<Real<T>*>(m2));
}

}  // namespace

void class_moments_cuda(const Matrix& features, const int64_t* order, const int64_t* start, int64_t num_classes,
                        void* mean, void* m2, void* stream) {
  if (features.columns == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  switch (features.type) {
    case ElementType::float64: launch<double>(features, order, start, num_classes, mean, m2, on); break;
    case ElementType::float32: launch<float>(features, order, start, num_classes, mean, m2, on); break;
    case ElementType::bfloat16: launch<Bfloat16>(features, order, start, num_classes, mean, m2, on); break;
    case ElementType::float16: launch<Float16>(features, order, start, num_classes, mean, m2, on); break;
  }
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string("class_moments could not be launched: ") + cudaGetErrorString(error));
  }
}

}  // namespace imbdyn
