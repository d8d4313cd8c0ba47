// The inner kernels: compiled once per instruction set (isa_*.cpp), reached through one table of function pointers.
#pragma once

#include "common/arrays.h"

namespace imbdyn {

/// Widest panel of columns that one call of a moments kernel takes: what it holds on its stack grows with it.
constexpr int64_t kMomentsPanel = 1024;

/// Some rows of one class and some columns of the features.
struct MomentsTile {
  Matrix features;
  const int64_t* rows;  ///< [num_rows] row numbers, at least one
  int64_t num_rows;
  int64_t first_column;
  int64_t num_columns;  ///< 1..kMomentsPanel
  double* mean;         ///< [num_columns], written
  double* m2;           ///< [num_columns], written: sum of squared deviations from that mean
};

/// The order of the rows of the sums of class_logits, as in imbdyn.ops.ClassLogits.
enum LogitSum { kCount, kLoss, kCorrect, kMargin, kConfidence, kPredicted, kPositive, kNegative, kLogitSums };

/// Rows that a logits kernel takes at a time when it works across rows, and the most classes for which it does:
/// few classes do not fill a vector, and strided rows are read where their elements are neighbours.
constexpr int64_t kLogitRows = 64;
constexpr int64_t kFewClasses = 48;
constexpr int64_t kFewClassesStrided = 1024;

static constexpr bool few_classes(int64_t num_classes, int64_t column_stride) {
  return num_classes <= (column_stride == 1 ? kFewClasses : kFewClassesStrided);
}

/// Consecutive rows of the logits.
struct LogitsTile {
  Matrix logits;
  Labels labels;
  int64_t first_row;
  int64_t end_row;
  double* sums;   ///< [kLogitSums, C], added to
  void* scratch;  ///< C times kLogitRows (across rows) or 2 (else) numbers of 8 bytes
};

/// Sums over elements of one tensor, with dw = w - previous; 0 for what was not given.
struct NormSums {
  double weight;         ///< sum of w^2
  double grad;           ///< sum of grad^2
  double update;         ///< sum of dw^2
  double weight_update;  ///< sum of w dw
};

/// Elements that lie one after another and are only read.
struct FlatArray {
  const void* data;
  ElementType type;
  bool given;  ///< not told by `data`, which is null in an empty tensor too
};

/// A weight w and what was given beside it: three arrays that have the same element at the same place.
struct Parameter {
  FlatArray weight;
  FlatArray grad;
  FlatArray previous;
  int64_t count;  ///< elements of each
};

/// Consecutive elements of one parameter.
struct NormsTile {
  Parameter parameter;
  int64_t begin;
  int64_t count;
  NormSums* sums;  ///< added to
};

/// One instruction set's kernels, by element type where one array has one.
struct Kernels {
  void (*class_moments[kElementTypes])(const MomentsTile& tile);
  /// Returns the first row with a bad label, or kAllLabelsGood. Never writes for a bad label.
  int64_t (*class_logits[kElementTypes])(const LogitsTile& tile);
  void (*parameter_norms)(const NormsTile& tile);
};

extern const Kernels kBaselineKernels;
#if defined(IMBDYN_X86_KERNELS)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

}  // namespace imbdyn
