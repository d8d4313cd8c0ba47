// Row numbers in order of class, as every kernel that works class by class needs them.
#pragma once

#include <memory>
#include <vector>

#include "common/arrays.h"

namespace imbdyn {

/// Row numbers in order of class: a counting sort that touches only the classes that are present.
struct SortedRows {
  struct Class {
    int64_t id;
    int64_t begin;  ///< its rows are order[begin .. begin + count)
    int64_t count;
  };
  std::vector<Class> present;  ///< in the order in which the labels first name them
  std::unique_ptr<int64_t[]> order;
};

/// Adds to count [C] (zeros before) and sorts the rows; returns the first bad row, or kAllLabelsGood.
int64_t sort_rows(const Labels& labels, int64_t rows, int64_t* count, SortedRows& sorted);

}  // namespace imbdyn
