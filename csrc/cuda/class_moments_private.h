// class_moments of few classes on a GPU, each warp with sums of its own (class_moments_private_plan.h says how).
#pragma once

#include <cuda_runtime.h>

#include "cuda/class_moments.h"
#include "cuda/class_moments_private_plan.h"

namespace imbdyn {

/// As class_moments_cuda, where `plan` fits; features are float32, bfloat16 or float16 and lie in pieces of 16 bytes.
void class_moments_private(const Matrix& features, const Labels& labels, const MomentsMemory& moments, bool fresh,
                           const PrivatePlan& plan, char* memory, cudaStream_t stream);

}  // namespace imbdyn
