// imbdyn._C: the compiled kernels as Python sees them. Addresses are integers; imbdyn/_C.pyi has the signatures.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <vector>

#include "common/arrays.h"
#include "cpu/class_logits.h"
#include "cpu/class_moments.h"
#include "cpu/dispatch.h"
#include "cpu/parameter_norms.h"
#if defined(IMBDYN_HAS_CUDA)
#include "cuda/class_moments.h"
#endif

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

#if defined(IMBDYN_HAS_CUDA)
void bind_class_moments_cuda(std::uintptr_t features, int type, std::int64_t rows, std::int64_t columns,
                             std::int64_t row_stride, std::int64_t column_stride, std::uintptr_t order,
                             std::uintptr_t start, std::int64_t num_classes, std::uintptr_t mean, std::uintptr_t m2,
                             std::uintptr_t stream) {
  class_moments_cuda(matrix(features, type, rows, columns, row_stride, column_stride),
                     pointer<const std::int64_t>(order), pointer<const std::int64_t>(start), num_classes,
                     pointer<void>(mean), pointer<void>(m2), pointer<void>(stream));
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
  m.def("class_moments", &bind_class_moments, py::call_guard<py::gil_scoped_release>());
  m.def("class_logits", &bind_class_logits, py::call_guard<py::gil_scoped_release>());
  m.def("parameter_norms", &bind_parameter_norms, py::call_guard<py::gil_scoped_release>());
  m.def("active_isa", &active_isa);
  m.def("available_isas", &available_isas);
  m.attr("compiler") = compiler();
#if defined(IMBDYN_HAS_CUDA)
  m.def("class_moments_cuda", &bind_class_moments_cuda, py::call_guard<py::gil_scoped_release>());
  m.attr("has_cuda") = true;
#else
  m.attr("has_cuda") = false;
#endif
}
