// What the kernels see of a tensor: a pointer, sizes and strides. Checks were made in Python, where a message can
// name the argument. Plain data only: the files that are compiled once per instruction set include this header.
#pragma once

#include <stdint.h>

namespace imbdyn {

/// Element types of the inputs; the numbers are part of the binding (imbdyn/ops/_extension.py).
enum class ElementType : int { float64 = 0, float32 = 1, bfloat16 = 2, float16 = 3 };
constexpr int kElementTypes = 4;

/// A matrix that is only read. Strides count elements and may be 0 or negative.
struct Matrix {
  const void* data;
  ElementType type;
  int64_t rows;
  int64_t columns;
  int64_t row_stride;
  int64_t column_stride;
};

/// One class id a row, or `ignore_index` for a row that counts nowhere.
struct Labels {
  const int64_t* data;
  int64_t stride;
  int64_t num_classes;
  int64_t ignore_index;
};

/// What a function returns when every label is a class or `ignore_index`; else it returns the first bad row.
constexpr int64_t kAllLabelsGood = -1;

}  // namespace imbdyn
