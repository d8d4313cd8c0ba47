// imbdyn._C: the compiled kernels as Python sees them. Addresses are integers; imbdyn/_C.pyi has the signatures.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <vector>

#include "common/arrays.h"
#include "cpu/class_gram.h"
#include "cpu/class_logits.h"
#include "cpu/class_moments.h"
#include "cpu/dispatch.h"
#include "cpu/norm_gradients.h"
#include "cpu/parameter_norms.h"
#include "numbers_function.h"
#if defined(IMBDYN_HAS_CUDA)
#include "cuda/class_logits.h"
#include "cuda/class_moments.h"
#include "cuda/parameter_norms.h"
#endif
#include "trace/bindings.h"

namespace py = pybind11;
using namespace imbdyn;

namespace {

template <class T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

Matrix matrix(std::uintptr_t address, int type, std::int64_t rows, std::int64_t columns, std::int64_t row_stride,
              std::int64_t column_stride) {
  return {pointer<const void>(address), static_cast<ElementType>(type), rows, columns, row_stride, column_stride};
}

std::int64_t bind_class_moments(std::uintptr_t features, int type, std::int64_t rows, std::int64_t columns,
                                std::int64_t row_stride, std::int64_t column_stride, std::uintptr_t labels,
                                std::int64_t label_stride, std::int64_t num_classes, std::int64_t ignore_index,
                                std::uintptr_t count, std::uintptr_t mean, std::uintptr_t m2, int threads) {
  return class_moments(matrix(features, type, rows, columns, row_stride, column_stride),
                       {pointer<const std::int64_t>(labels), label_stride, num_classes, ignore_index},
                       {pointer<std::int64_t>(count), pointer<void>(mean), pointer<void>(m2)}, threads);
}

std::int64_t bind_class_logits(std::uintptr_t logits, int type, std::int64_t rows, std::int64_t num_classes,
                               std::int64_t row_stride, std::int64_t column_stride, std::uintptr_t labels,
                               std::int64_t label_stride, std::int64_t ignore_index, std::uintptr_t sums, int threads) {
  return class_logits(matrix(logits, type, rows, num_classes, row_stride, column_stride),
                      {pointer<const std::int64_t>(labels), label_stride, num_classes, ignore_index},
                      pointer<double>(sums), threads);
}

GramOut gram_out(std::uintptr_t gram, std::uintptr_t sample_norm_sq) {
  return {pointer<double>(gram), pointer<double>(sample_norm_sq)};
}

std::int64_t bind_class_gram(int type, std::int64_t rows, std::uintptr_t inputs, std::int64_t input_columns,
                             std::int64_t input_row_stride, std::int64_t input_column_stride, std::uintptr_t grads,
                             std::int64_t grad_columns, std::int64_t grad_row_stride, std::int64_t grad_column_stride,
                             std::uintptr_t labels, std::int64_t label_stride, std::int64_t num_classes,
                             std::int64_t ignore_index, std::uintptr_t samples, std::int64_t sample_stride, int way,
                             std::uintptr_t gram, std::uintptr_t sample_norm_sq, std::uintptr_t bias_gram,
                             std::uintptr_t bias_sample_norm_sq, int threads) {
  return class_gram_rows(matrix(inputs, type, rows, input_columns, input_row_stride, input_column_stride),
                         matrix(grads, type, rows, grad_columns, grad_row_stride, grad_column_stride),
                         {pointer<const std::int64_t>(labels), label_stride, num_classes, ignore_index},
                         {pointer<const std::int64_t>(samples), sample_stride}, static_cast<GramWay>(way),
                         gram_out(gram, sample_norm_sq), gram_out(bias_gram, bias_sample_norm_sq), threads);
}

/// `sizes` and `strides` are those of tensors [samples, channels, ...] with one to three dimensions behind.
Images images(std::uintptr_t address, int type, const std::vector<std::int64_t>& sizes,
              const std::vector<std::int64_t>& strides) {
  Images result{
      pointer<const void>(address), static_cast<ElementType>(type), sizes[0], sizes[1], {}, strides[0], strides[1], {}};
  const size_t missing = kMostDimensions + 2 - sizes.size();
  for (size_t d = 0; d < kMostDimensions; ++d) {
    result.size[d] = d < missing ? 1 : sizes[d + 2 - missing];
    result.stride[d] = d < missing ? 0 : strides[d + 2 - missing];
  }
  return result;
}

/// `kernel`, `stride`, `padding` and `dilation` have a number for each dimension.
std::int64_t bind_class_gram_convolution(int type, std::uintptr_t inputs, const std::vector<std::int64_t>& input_sizes,
                                         const std::vector<std::int64_t>& input_strides, std::uintptr_t grads,
                                         const std::vector<std::int64_t>& grad_sizes,
                                         const std::vector<std::int64_t>& grad_strides, std::uintptr_t labels,
                                         std::int64_t label_stride, std::int64_t num_classes, std::int64_t ignore_index,
                                         const std::vector<std::int64_t>& kernel,
                                         const std::vector<std::int64_t>& stride,
                                         const std::vector<std::int64_t>& padding,
                                         const std::vector<std::int64_t>& dilation, std::int64_t groups,
                                         std::uintptr_t gram, std::uintptr_t sample_norm_sq, int threads) {
  Convolution convolution{{1, 1, 1}, {1, 1, 1}, {}, {1, 1, 1}, groups};
  const size_t missing = kMostDimensions - kernel.size();
  for (size_t d = 0; d < kernel.size(); ++d) {
    convolution.kernel[missing + d] = kernel[d];
    convolution.stride[missing + d] = stride[d];
    convolution.padding[missing + d] = padding[d];
    convolution.dilation[missing + d] = dilation[d];
  }
  return class_gram_convolution(images(inputs, type, input_sizes, input_strides),
                                images(grads, type, grad_sizes, grad_strides),
                                {pointer<const std::int64_t>(labels), label_stride, num_classes, ignore_index},
                                convolution, gram_out(gram, sample_norm_sq), threads);
}

/// `table` has kTableColumns numbers a parameter: address and type of weight, grad and previous (type -1: not given),
/// and their element count.
void bind_parameter_norms(const std::vector<std::int64_t>& table, std::int64_t measured, std::int64_t rows,
                          std::uintptr_t out, std::uintptr_t rows_out, int threads) {
  constexpr size_t kTableColumns = 7;
  std::vector<Parameter> parameters;
  parameters.reserve(table.size() / kTableColumns);
  for (size_t i = 0; i + kTableColumns <= table.size(); i += kTableColumns) {
    const auto array = [&](size_t column) -> FlatArray {
      const int type = static_cast<int>(table[i + column + 1]);
      return {pointer<const void>(static_cast<std::uintptr_t>(table[i + column])), static_cast<ElementType>(type),
              type >= 0};
    };
    parameters.push_back({array(0), array(2), array(4), table[i + 6]});
  }
  parameter_norms(parameters, {measured, rows, pointer<double>(rows_out)}, pointer<double>(out), threads);
}

/// `strides` are those of units, rows and columns.
UnitMatrices unit_matrices(std::uintptr_t address, int type, std::int64_t rows, std::int64_t columns,
                           const std::array<std::int64_t, 3>& strides) {
  return {matrix(address, type, rows, columns, strides[1], strides[2]), strides[0]};
}

void bind_norm_gradients(const std::array<std::int64_t, 3>& sizes, std::uintptr_t input, int input_type,
                         const std::array<std::int64_t, 3>& input_strides, std::uintptr_t grads, int grad_type,
                         const std::array<std::int64_t, 3>& grad_strides, std::int64_t num_groups, bool across_units,
                         std::uintptr_t mean, std::uintptr_t variance, double eps, std::uintptr_t weight,
                         std::uintptr_t bias, int threads) {
  norm_gradients(unit_matrices(input, input_type, sizes[1], sizes[2], input_strides),
                 unit_matrices(grads, grad_type, sizes[1], sizes[2], grad_strides), sizes[0],
                 {num_groups, across_units, pointer<const double>(mean), pointer<const double>(variance), eps},
                 {pointer<void>(weight), pointer<void>(bias)}, threads);
}

void bind_norm_gradients_rows(const std::array<std::int64_t, 3>& sizes, std::uintptr_t input, int input_type,
                              const std::array<std::int64_t, 3>& input_strides, std::uintptr_t grads, int grad_type,
                              const std::array<std::int64_t, 3>& grad_strides, bool centred, double eps,
                              std::uintptr_t weight, std::uintptr_t bias, int threads) {
  norm_gradients_rows(unit_matrices(input, input_type, sizes[1], sizes[2], input_strides),
                      unit_matrices(grads, grad_type, sizes[1], sizes[2], grad_strides), sizes[0], centred, eps,
                      {pointer<void>(weight), pointer<void>(bias)}, threads);
}

#if defined(IMBDYN_HAS_CUDA)
std::int64_t bind_class_moments_cuda_bytes(std::int64_t rows, std::int64_t columns, std::int64_t num_classes,
                                           int type) {
  return class_moments_cuda_bytes(rows, columns, num_classes, static_cast<ElementType>(type));
}

void bind_class_moments_cuda(std::uintptr_t features, int type, std::int64_t rows, std::int64_t columns,
                             std::int64_t row_stride, std::int64_t column_stride, std::uintptr_t labels,
                             std::int64_t label_stride, std::int64_t num_classes, std::int64_t ignore_index,
                             std::uintptr_t count, std::uintptr_t mean, std::uintptr_t m2, bool fresh,
                             std::uintptr_t memory, std::uintptr_t stream) {
  class_moments_cuda(matrix(features, type, rows, columns, row_stride, column_stride),
                     {pointer<const std::int64_t>(labels), label_stride, num_classes, ignore_index},
                     {pointer<std::int64_t>(count), pointer<void>(mean), pointer<void>(m2)}, fresh,
                     pointer<void>(memory), pointer<void>(stream));
}

std::int64_t bind_class_logits_cuda_bytes(std::int64_t rows, std::int64_t num_classes, int type,
                                          std::int64_t processors, std::int64_t shared_bytes) {
  return class_logits_cuda_bytes(rows, num_classes, static_cast<ElementType>(type), {processors, shared_bytes});
}

void bind_add_class_logits_cuda(std::uintptr_t sums, std::uintptr_t logits, int type, std::int64_t rows,
                                std::uintptr_t labels, std::int64_t label_stride, std::int64_t num_classes,
                                std::int64_t ignore_index, std::int64_t processors, std::int64_t shared_bytes,
                                std::uintptr_t memory, std::uintptr_t stream) {
  add_class_logits_cuda(pointer<double>(sums), matrix(logits, type, rows, num_classes, num_classes, 1),
                        {pointer<const std::int64_t>(labels), label_stride, num_classes, ignore_index},
                        {processors, shared_bytes}, pointer<double>(memory), pointer<void>(stream));
}

void bind_parameter_norms_cuda(std::uintptr_t table, std::int64_t chunks, std::int64_t tensors, std::int64_t rows,
                               std::uintptr_t partial, std::uintptr_t out, std::uintptr_t rows_out,
                               std::uintptr_t stream) {
  parameter_norms_cuda({pointer<const std::int64_t>(table), chunks, tensors, rows}, pointer<double>(partial),
                       pointer<double>(out), pointer<double>(rows_out), pointer<void>(stream));
}
#endif

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "gcc " __VERSION__;
#elif defined(_MSC_VER)
  return "msvc " + std::to_string(_MSC_FULL_VER);
#else
  return "unknown";
#endif
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled kernels. Private: imbdyn.ops checks the arguments that these functions trust.";
  static PyMethodDef methods[] = {
      numbers_function<&bind_class_moments>("class_moments"),
      numbers_function<&bind_class_logits>("class_logits"),
      numbers_function<&bind_class_gram>("class_gram"),
      {},
  };
  if (PyModule_AddFunctions(m.ptr(), methods) != 0) throw py::error_already_set();
  m.def("class_gram_convolution", &bind_class_gram_convolution, py::call_guard<py::gil_scoped_release>());
  m.def("parameter_norms", &bind_parameter_norms, py::call_guard<py::gil_scoped_release>());
  m.def("norm_gradients", &bind_norm_gradients, py::call_guard<py::gil_scoped_release>());
  m.def("norm_gradients_rows", &bind_norm_gradients_rows, py::call_guard<py::gil_scoped_release>());
  m.def("active_isa", &active_isa);
  m.def("available_isas", &available_isas);
  bind_trace(m);
  m.attr("compiler") = compiler();
#if defined(IMBDYN_HAS_CUDA)
  m.def("class_logits_cuda_bytes", &bind_class_logits_cuda_bytes);
  m.def("add_class_logits_cuda", &bind_add_class_logits_cuda, py::call_guard<py::gil_scoped_release>());
  m.def("class_moments_cuda_bytes", &bind_class_moments_cuda_bytes);
  m.def("class_moments_cuda", &bind_class_moments_cuda, py::call_guard<py::gil_scoped_release>());
  m.def("parameter_norms_cuda", &bind_parameter_norms_cuda, py::call_guard<py::gil_scoped_release>());
  m.attr("has_cuda") = true;
#else
  m.attr("has_cuda") = false;
#endif
}
