// Norms of many weights, of their gradients and of their updates, in one pass over all of them.
#pragma once

#include <vector>

#include "cpu/kernels.h"

namespace imbdyn {

/// The parameter that is also measured row by row: row k is elements k * count / rows .. (k + 1) * count / rows - 1.
struct MeasuredRows {
  int64_t parameter;  ///< its index; -1 for none
  int64_t rows;
  double* out;  ///< [rows, 4], written
};

/// Writes ||w||, ||grad||, ||dw||, <w, dw> with dw = w - previous to `out` [P, 4]; NaN for what was not given.
///
/// All arithmetic is float64. The result does not depend on `threads`, of which at most one for each 32768 elements
/// works. Bound by reading each array once. Memory: 56 bytes for each 32768 elements, parameter and measured row, and
/// 24 KiB of stack a thread.
void parameter_norms(const std::vector<Parameter>& parameters, const MeasuredRows& measured, double* out, int threads);

}  // namespace imbdyn
