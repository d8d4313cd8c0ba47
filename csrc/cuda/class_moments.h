// class_moments on a GPU: rows ordered by class on the device, then one read of the features.
#pragma once

#include "common/arrays.h"

namespace imbdyn {

/// Where per-class results go: count int64 [C], mean and m2 [C, D] in float64 for float64 features, else in float32.
struct MomentsMemory {
  int64_t* count;
  void* mean;
  void* m2;
};

/// Bytes of memory that class_moments_cuda needs.
int64_t class_moments_cuda_bytes(int64_t rows, int64_t columns, int64_t num_classes, ElementType type);

/// Adds rows to the moments of their classes, merging by the pairwise rule of Chan, Golub and LeVeque (1979); the
/// others are left alone. With `fresh` the moments are taken as empty, whatever is there: all of them are written.
///
/// A label that is neither a class nor ignore_index is taken as ignore_index: nothing waits for the device. All
/// addresses are the device's; `memory` has class_moments_cuda_bytes, aligned to 256. `stream` is a cudaStream_t; the
/// launches are asynchronous. At most 2^31 - 1 rows. The order of all sums depends on the labels alone. Throws
/// std::runtime_error if CUDA refuses a launch.
void class_moments_cuda(const Matrix& features, const Labels& labels, const MomentsMemory& moments, bool fresh,
                        void* memory, void* stream);

}  // namespace imbdyn
