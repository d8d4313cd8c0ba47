// Count, mean and sum of squared deviations of the rows of each class, in one pass over the features.
#pragma once

#include "common/arrays.h"

namespace imbdyn {

/// The moments so far, to which the rows are added: zeros at first. Only the classes that are present are touched.
struct Moments {
  int64_t* count;  ///< [C]
  void* mean;      ///< [C, D], float64 for float64 features, else float32
  void* m2;        ///< [C, D], likewise
};

/// Returns kAllLabelsGood, or the first row whose label is bad (then nothing was added).
///
/// The result does not depend on `threads`. Bound by reading the features once: in the order in which they lie where
/// the sums of all classes fit into a cache together and there are many rows of each, else class by class. Memory in
/// order: up to 8 times 16 bytes a column and class, and 64 KiB a thread. By class: 16 bytes a row, 16 bytes of
/// address space a class (touched where a class is present), 16 bytes a column for each 8192 rows of a class that has
/// more of them, and 160 KiB of stack a thread.
int64_t class_moments(const Matrix& features, const Labels& labels, const Moments& out, int threads);

}  // namespace imbdyn
