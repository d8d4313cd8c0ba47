// Results by the classes that are present, and their way to arrays by class id.
#pragma once

#include <vector>

#include "cpu/class_gram.h"
#include "cpu/sorted_rows.h"

namespace imbdyn {

/// Sums of one parameter by present class, in the order of SortedRows::present.
class GramResult {
 public:
  GramResult(const SortedRows& sorted, int64_t num_classes, const GramOut& out)
      : present_(sorted.present), num_classes_(num_classes), out_(out) {
    if (out.gram != nullptr) gram_.resize(present_.size() * present_.size());
    if (out.sample_norm_sq != nullptr) norms_.resize(present_.size());
  }

  /// [present, present], or null where it is not wanted.
  double* gram() { return out_.gram == nullptr ? nullptr : gram_.data(); }
  /// [present], or null where it is not wanted.
  double* norms() { return out_.sample_norm_sq == nullptr ? nullptr : norms_.data(); }

  void store() const {
    const size_t count = present_.size();
    for (size_t i = 0; i < count && out_.gram != nullptr; ++i) {
      double* const row = out_.gram + present_[i].id * num_classes_;
      for (size_t j = 0; j < count; ++j) row[present_[j].id] = gram_[i * count + j];
    }
    for (size_t i = 0; i < count && out_.sample_norm_sq != nullptr; ++i)
      out_.sample_norm_sq[present_[i].id] = norms_[i];
  }

 private:
  const std::vector<SortedRows::Class>& present_;
  int64_t num_classes_;
  GramOut out_;
  std::vector<double> gram_;
  std::vector<double> norms_;
};

}  // namespace imbdyn
