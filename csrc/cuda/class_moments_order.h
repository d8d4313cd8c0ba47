// Ordering rows by class on a GPU (cuda/class_moments_plan.h says what is made).
#pragma once

#include <cuda_runtime.h>

#include "cuda/class_moments_plan.h"

namespace imbdyn {

/// Fills the order and the lines in `memory`, and adds the rows of each class to `count` (`fresh`: sets them).
///
/// If `fresh`, `count` must hold zeros where the lines are not by class or there is more than one pass.
void order_by_class(const Labels& labels, int64_t rows, const Plan& plan, int64_t* count, bool fresh, char* memory,
                    cudaStream_t stream);

}  // namespace imbdyn
