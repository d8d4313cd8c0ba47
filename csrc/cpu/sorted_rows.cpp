#include "cpu/sorted_rows.h"

namespace imbdyn {

int64_t sort_rows(const Labels& labels, int64_t rows, int64_t* count, SortedRows& sorted) {
  // Read once: a copy to this memory that has not ended may change them, and what was not checked is no place to write.
  const std::unique_ptr<int64_t[]> label(new int64_t[static_cast<size_t>(rows)]);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t y = label[i] = labels.data[i * labels.stride];
    if (y == labels.ignore_index) continue;
    if (y < 0 || y >= labels.num_classes) return i;
    if (count[y]++ == 0) sorted.present.push_back({y, 0, 0});
  }
  // Not initialised: a page of it exists only once a class there is present.
  std::unique_ptr<int64_t[]> next(new int64_t[static_cast<size_t>(labels.num_classes)]);
  int64_t begin = 0;
  for (SortedRows::Class& c : sorted.present) {
    c.begin = next[c.id] = begin;
    c.count = count[c.id];
    begin += c.count;
  }
  sorted.order.reset(new int64_t[static_cast<size_t>(begin)]);
  for (int64_t i = 0; i < rows; ++i) {
    if (label[i] != labels.ignore_index) sorted.order[next[label[i]]++] = i;
  }
  return kAllLabelsGood;
}

}  // namespace imbdyn
