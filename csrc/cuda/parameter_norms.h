// parameter_norms on a GPU: one launch for all tensors over a table of their chunks, one that adds the chunks up.
#pragma once

#include <stdint.h>

namespace imbdyn {

struct NormsTable {
  /// Four numbers a chunk (cuda/parameter_norms_chunk.h), then first and last + 1 chunk of each tensor and each row.
  const int64_t* numbers;
  int64_t chunks;
  int64_t tensors;
  int64_t rows;
};

/// Writes ||w||, ||grad||, ||dw|| and <w, dw> of each tensor and row; NaN for what was not given. All sums are float64,
/// in an order that depends on the table alone.
///
/// All addresses are the device's. `partial` is memory for four numbers a chunk; `stream` is a cudaStream_t, the
/// launches are asynchronous. Throws std::runtime_error if CUDA refuses one.
void parameter_norms_cuda(const NormsTable& table, double* partial, double* tensors, double* rows, void* stream);

}  // namespace imbdyn
