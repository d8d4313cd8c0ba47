// class_moments on a GPU: correct and simple first.
#pragma once

#include "common/arrays.h"

namespace imbdyn {

/// Writes mean and m2 [C, D] (float64 for float64 features, else float32) of every class that has rows; the others are
/// left alone. All addresses are the device's.
///
/// `order` holds row numbers by class: those of class c are order[start[c] .. start[c + 1]). `stream` is a
/// cudaStream_t; the launch is asynchronous. Throws std::runtime_error if CUDA refuses the launch.
void class_moments_cuda(const Matrix& features, const int64_t* order, const int64_t* start, int64_t num_classes,
                        void* mean, void* m2, void* stream);

}  // namespace imbdyn
