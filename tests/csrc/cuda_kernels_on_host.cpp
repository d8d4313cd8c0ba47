// What tests/csrc/test_cuda_kernels.py calls of the CUDA sources, which it compiles with cuda_on_host.h.
#include <cstdint>

#include "cuda/class_logits.h"
#include "cuda/class_moments.h"
#include "cuda/parameter_norms.h"

using namespace imbdyn;

extern "C" std::int64_t moments_bytes(std::int64_t rows, std::int64_t columns, std::int64_t num_classes, int type) {
  return class_moments_cuda_bytes(rows, columns, num_classes, static_cast<ElementType>(type));
}

extern "C" void moments(const void* features, int type, std::int64_t rows, std::int64_t columns,
                        std::int64_t row_stride, std::int64_t column_stride, const std::int64_t* labels,
                        std::int64_t label_stride, std::int64_t num_classes, std::int64_t ignore_index,
                        std::int64_t* count, void* mean, void* m2, bool fresh, void* memory) {
  class_moments_cuda({features, static_cast<ElementType>(type), rows, columns, row_stride, column_stride},
                     {labels, label_stride, num_classes, ignore_index}, {count, mean, m2}, fresh, memory, nullptr);
}

extern "C" std::int64_t logits_bytes(std::int64_t rows, std::int64_t num_classes, int type, std::int64_t processors,
                                     std::int64_t shared_bytes) {
  return class_logits_cuda_bytes(rows, num_classes, static_cast<ElementType>(type), {processors, shared_bytes});
}

extern "C" void add_logits(double* sums, const void* logits, int type, std::int64_t rows, const std::int64_t* labels,
                           std::int64_t label_stride, std::int64_t num_classes, std::int64_t ignore_index,
                           std::int64_t processors, std::int64_t shared_bytes, double* memory) {
  add_class_logits_cuda(sums, {logits, static_cast<ElementType>(type), rows, num_classes, num_classes, 1},
                        {labels, label_stride, num_classes, ignore_index}, {processors, shared_bytes}, memory, nullptr);
}

extern "C" void norms(const std::int64_t* table, std::int64_t chunks, std::int64_t tensors, std::int64_t rows,
                      double* partial, double* out, double* rows_out) {
  parameter_norms_cuda({table, chunks, tensors, rows}, partial, out, rows_out, nullptr);
}
