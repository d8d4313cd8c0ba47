// class_logits on a GPU, for 2 to 128 classes: logits are read once, by neighbours, and nothing is added by atomics.
#pragma once

#include "common/arrays.h"

namespace imbdyn {

/// What the classes of a row are at most, and at least.
constexpr int64_t kLeastLogits = 2;
constexpr int64_t kMostLogits = 128;

/// The multiprocessors of a GPU, and the bytes of shared memory that the blocks of each have together.
struct Processors {
  int64_t count;
  int64_t shared_bytes;
};

/// Bytes of memory that add_class_logits_cuda needs.
int64_t class_logits_cuda_bytes(int64_t rows, int64_t num_classes, ElementType type, const Processors& processors);

/// Adds the rows of logits [N, C] to `sums` [8, C], a row a field of imbdyn.ops.ClassLogits.
///
/// logits: not float64, contiguous, at an address that is a multiple of 16. A label that is neither a class nor
/// ignore_index is taken as ignore_index: nothing waits for the device. All addresses are the device's; `memory` has
/// class_logits_cuda_bytes. `stream` is a cudaStream_t; the two launches are asynchronous. The order of all sums
/// depends on the sizes alone. Throws std::runtime_error if CUDA refuses a launch.
void add_class_logits_cuda(double* sums, const Matrix& logits, const Labels& labels, const Processors& processors,
                           double* memory, void* stream);

}  // namespace imbdyn
