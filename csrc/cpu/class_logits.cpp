#include "cpu/class_logits.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "common/thread_pool.h"
#include "cpu/dispatch.h"
#include "cpu/kernels.h"

namespace imbdyn {
namespace {

// The rows are cut into parts that each have their own sums, by their shape alone, so that the order of the sums does
// not follow the thread number. At least 128 rows, so that adding up the parts' sums is a small share of the work.
constexpr int64_t kRowsOfPart = 128;
constexpr int64_t kLogitsOfPart = 16384;
constexpr int64_t kMostParts = 64;

int64_t count_parts(int64_t rows, int64_t num_classes) {
  const int64_t smallest = std::max(kRowsOfPart, kLogitsOfPart / std::max<int64_t>(num_classes, 1));
  return std::clamp<int64_t>(rows / smallest, 1, kMostParts);
}

}  // namespace

int64_t class_logits(const Matrix& logits, const Labels& labels, double* sums, int threads) {
  const int64_t num_classes = labels.num_classes;
  const int64_t parts = count_parts(logits.rows, num_classes);
  const int64_t size = kLogitSums * num_classes;
  const int64_t scratch = num_classes * (few_classes(num_classes, logits.column_stride) ? kLogitRows : 3);
  std::vector<double> partial(static_cast<size_t>((parts - 1) * size));
  const int64_t slots = std::clamp<int64_t>(threads, 1, parts);
  const std::unique_ptr<double[]> scratches(new double[static_cast<size_t>(slots * scratch)]);
  std::vector<int64_t> bad_row(static_cast<size_t>(parts), kAllLabelsGood);
  const auto kernel = kernels().class_logits[static_cast<int>(logits.type)];

  parallel_for(threads, parts, [&](int64_t part, int slot) {
    double* const into = part == 0 ? sums : partial.data() + (part - 1) * size;
    bad_row[static_cast<size_t>(part)] =
        kernel({logits, labels, logits.rows * part / parts, logits.rows * (part + 1) / parts, into,
                scratches.get() + slot * scratch});
  });
  for (const int64_t row : bad_row) {
    if (row != kAllLabelsGood) return row;
  }
  for (int64_t part = 1; part < parts; ++part) {
    const double* const from = partial.data() + (part - 1) * size;
    for (int64_t k = 0; k < size; ++k) sums[k] += from[k];
  }
  return kAllLabelsGood;
}

}  // namespace imbdyn
