// What tests/csrc/test_csrc.py calls through ctypes: parts of csrc that Python does not reach otherwise.
#include <cmath>
#include <cstdint>

#include "common/exp.h"
#include "cuda/class_moments_plan.h"
#include "cuda/class_moments_rows.h"
#include "cuda/parameter_norms_chunk.h"

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

/// What a block of the CUDA kernel computes of one class, a thread at a time on this processor: mean and m2 of all
/// columns of float32 features over `rows`, by `warps` warps, in panels of the columns of a warp.
extern "C" void moments_on_host(const float* data, std::int64_t columns, std::int64_t row_stride,
                                std::int64_t column_stride, const std::int32_t* rows, std::int32_t count, int warps,
                                bool wide, bool two_passes, double* mean, double* m2) {
  using namespace imbdyn;
  const Matrix features{data, ElementType::float32, count, columns, row_stride, column_stride};
  constexpr int kSize = kColumns<float>;
  constexpr int kMostWarps = 8;
  for (std::int64_t first = 0; first < columns; first += 32 * kSize) {
    for (int lane = 0; lane < 32; ++lane) {
      double means[kMostWarps][kSize];
      float squares[kMostWarps][kSize];
      for (int warp = 0; warp < warps; ++warp) {
        const Share share{rows, count, warp, warps};
        if (size_of(share) == 0) continue;
        if (two_passes) {
          double sums[kSize];
          wide ? lane_sums<float, true>(features, share, first, lane, nullptr, sums)
               : lane_sums<float, false>(features, share, first, lane, nullptr, sums);
          for (int k = 0; k < kSize; ++k) means[warp][k] = sums[k] / size_of(share);
          wide ? lane_sums<float, true>(features, share, first, lane, means[warp], sums)
               : lane_sums<float, false>(features, share, first, lane, means[warp], sums);
          for (int k = 0; k < kSize; ++k) squares[warp][k] = static_cast<float>(sums[k]);
        } else {
          wide ? lane_moments<float, true>(features, share, first, lane, means[warp], squares[warp])
               : lane_moments<float, false>(features, share, first, lane, means[warp], squares[warp]);
        }
      }
      for (int k = 0; k < kSize; ++k) {
        const std::int64_t column =
            wide ? column_of<float, true>(first, lane, k) : column_of<float, false>(first, lane, k);
        if (column >= columns) continue;
        const Moments result = merge_shares({rows, count, 0, warps}, warps, &means[0][k], &squares[0][k], kSize);
        mean[column] = result.mean;
        m2[column] = result.m2;
      }
    }
  }
}

/// Moments of n_a and n_b rows merged: n, mean, m2 in `six` become those of both, in its first three.
extern "C" void merge_on_host(double* six) {
  const imbdyn::Moments all = imbdyn::merged({six[0], six[1], six[2]}, {six[3], six[4], six[5]});
  six[0] = all.n;
  six[1] = all.mean;
  six[2] = all.m2;
}

/// Writes bits of a chunk's rows, windows, lines, whether they are by class and passes of a plan, and the bytes of its
/// parts' ends.
extern "C" void plan_on_host(std::int64_t rows, std::int64_t columns, std::int64_t num_classes, std::int64_t* out) {
  const imbdyn::Plan plan = imbdyn::make_plan(rows, columns, num_classes, 4, 4);
  const std::int64_t numbers[] = {plan.chunking.bits, plan.windows,    plan.lines,          plan.by_class,
                                  plan.passes,        plan.digit_bits, plan.lines_at,       plan.totals_at,
                                  plan.histogram_at,  plan.order_at,   plan.other_order_at, plan.partial_at,
                                  plan.bytes};
  for (const std::int64_t number : numbers) *out++ = number;
}

extern "C" std::int64_t chunk_line_on_host(int bits, std::int64_t start, std::int64_t place) {
  return imbdyn::Chunking{bits}.line(start, place);
}

extern "C" std::int64_t rows_before_chunk_on_host(int bits, std::int64_t line, std::int64_t start) {
  return imbdyn::Chunking{bits}.rows_before(line, start);
}

/// What a block of the CUDA kernel sums of one chunk of parameter_norms, a thread after the other.
extern "C" void chunk_on_host(const std::int64_t* line, int threads, double* four) {
  using namespace imbdyn;
  const Chunk chunk{line[0], line[1], line[2], line[3]};
  for (int k = 0; k < 4; ++k) four[k] = 0;
  for (int thread = 0; thread < threads; ++thread) {
    const Sums sums = sum_chunk(chunk, thread, threads);
    four[0] += sums.w_w;
    four[1] += sums.grad_grad;
    four[2] += sums.dw_dw;
    four[3] += sums.w_dw;
  }
}
