// Eight sums by class over the rows of a matrix of logits, in one pass over it.
#pragma once

#include "common/arrays.h"

namespace imbdyn {

/// Adds to `sums` [8, C] (rows: LogitSum in cpu/kernels.h) and returns kAllLabelsGood, or the first row whose label is
/// bad (then what `sums` holds means nothing).
///
/// The result does not depend on `threads`, of which at most one for each 128 rows works. Memory: 64 bytes a class for
/// each 128 rows or more, so never more than half a byte a logit; and 16 bytes a class and thread (512 for few
/// classes).
int64_t class_logits(const Matrix& logits, const Labels& labels, double* sums, int threads);

}  // namespace imbdyn
