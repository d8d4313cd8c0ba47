// What tests/csrc/test_csrc.py calls through ctypes: parts of csrc that Python does not reach otherwise.
#include <cmath>
#include <cstdint>

#include "common/exp.h"
#include "cuda/class_moments_column.h"

/// Largest error of exp_nonpositive, in units in the last place of the result, over every `step`-th float in
/// [-87.3, -0]; `exact` is the float64 exponential.
extern "C" double largest_exp_error(std::uint32_t step) {
  using namespace imbdyn;
  double largest = 0;
  for (std::uint64_t bits = 0x80000000u; bits <= bits_of_float(-87.3f); bits += step) {
    const float x = float_of_bits(static_cast<std::uint32_t>(bits));
    const float got = exp_nonpositive(x);
    const double exact = std::exp(static_cast<double>(x));
    const double unit = std::nextafter(static_cast<float>(exact), INFINITY) - static_cast<float>(exact);
    const double error = std::fabs(got - exact) / unit;
    if (!(error <= largest)) largest = error;
  }
  return largest;
}

extern "C" float exp_of(float x) { return imbdyn::exp_nonpositive(x); }

extern "C" float float_of_half(std::uint16_t bits) { return imbdyn::to_real(imbdyn::Float16{bits}); }

/// The CUDA kernel's work for float32, a column at a time on this processor.
extern "C" void columns_on_host(const float* data, std::int64_t rows, std::int64_t columns, std::int64_t row_stride,
                                std::int64_t column_stride, const std::int64_t* order, const std::int64_t* start,
                                std::int64_t num_classes, double* mean, double* m2) {
  using namespace imbdyn;
  const Matrix features{data, ElementType::float32, rows, columns, row_stride, column_stride};
  for (std::int64_t c = 0; c < num_classes; ++c) {
    const std::int64_t count = start[c + 1] - start[c];
    if (count == 0) continue;
    for (std::int64_t j = 0; j < columns; ++j) {
      column_moments<float>(features, order + start[c], count, j, mean + c * columns + j, m2 + c * columns + j);
    }
  }
}
