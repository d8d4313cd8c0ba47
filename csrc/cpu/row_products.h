// Inner products between rows: of class gradients, and of the rows of a layer's inputs and output gradients.
#pragma once

#include <cstdint>
#include <vector>

#include "common/arrays.h"

namespace imbdyn {

/// gram[i][j] += <row i, row j> for rows that lie `pitch` numbers of type T (float or double) apart; both triangles.
///
/// Bound by multiply-adds, half of count^2 length. Bitwise repeatable for a number of threads.
template <class T>
void add_row_products(const T* rows, int64_t pitch, int64_t count, int64_t length, double* gram, int threads);

/// Rows of inputs and output gradients, ordered by class, and within a class by sample.
struct PairedRows {
  Matrix inputs;
  Matrix grad_outputs;
  const int64_t* order;              ///< [rows] row numbers
  std::vector<int64_t> class_index;  ///< [rows] of the ordered rows, ascending from 0
  std::vector<int64_t> unit;         ///< [rows] the sample of the ordered rows, neighbours of one sample share it
  int64_t rows;
  int64_t classes;
};

/// What pairs of rows add up to, for a layer's weight (a_r . a_s)(d_r . d_s) or its bias d_r . d_s.
struct PairSums {
  double* gram;   ///< [classes, classes], added to; of the bias, null: not wanted
  double* norms;  ///< [classes], pairs within a sample, added to; null: not wanted
};

/// The gram way: every pair of rows once, in blocks; nothing of the size rows^2 is stored.
///
/// Bound by multiply-adds, rows^2 (inputs + outputs) / 2. Does not depend on `threads`.
void add_pairs_of_rows(const PairedRows& rows, const PairSums& weight, const PairSums& bias, int threads);

/// Only the pairs within a sample: what the norms of samples of few rows follow from. `bias_norms` may be null.
void add_pairs_within_samples(const PairedRows& rows, double* weight_norms, double* bias_norms, int threads);

}  // namespace imbdyn
