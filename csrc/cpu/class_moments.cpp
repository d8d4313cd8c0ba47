#include "cpu/class_moments.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "common/thread_pool.h"
#include "cpu/dispatch.h"
#include "cpu/kernels.h"
#include "cpu/sorted_rows.h"

namespace imbdyn {
namespace {

// Rows of one class that one task takes. Fixed, so that the order of the sums does not follow the thread number.
constexpr int64_t kSegmentRows = 8192;
// Bytes of features below which waking a thread costs more than it saves.
constexpr int64_t kBytesPerThread = 256 * 1024;

/// Rows of one class, at most kSegmentRows of them.
struct Segment {
  int64_t class_id;
  int64_t begin;
  int64_t count;
  int64_t partial;  ///< its row in the partial results, -1 if the class has only this segment
};

std::vector<Segment> cut(const std::vector<SortedRows::Class>& classes, int64_t* partials) {
  std::vector<Segment> segments;
  segments.reserve(classes.size());
  *partials = 0;
  for (const SortedRows::Class& c : classes) {
    for (int64_t done = 0; done < c.count; done += kSegmentRows) {
      segments.push_back(
          {c.id, c.begin + done, std::min(kSegmentRows, c.count - done), c.count <= kSegmentRows ? -1 : (*partials)++});
    }
  }
  return segments;
}

/// Adds the mean and m2 of n rows to those of n_before rows, by the pairwise rule of Chan et al. (1979).
template <class Out>
void add(const double* mean, const double* m2, double n, double n_before, Out* to_mean, Out* to_m2, int64_t columns) {
  if (n_before == 0) {
    for (int64_t j = 0; j < columns; ++j) to_mean[j] = static_cast<Out>(mean[j]);
    for (int64_t j = 0; j < columns; ++j) to_m2[j] = static_cast<Out>(m2[j]);
    return;
  }
  const double weight = n / (n_before + n);
  for (int64_t j = 0; j < columns; ++j) {
    const double before = static_cast<double>(to_mean[j]);
    const double delta = mean[j] - before;
    to_m2[j] = static_cast<Out>(static_cast<double>(to_m2[j]) + (m2[j] + delta * delta * (n_before * weight)));
    // Infinite means have no difference, but inf and a finite mean average to inf.
    to_mean[j] =
        static_cast<Out>(std::isfinite(delta) ? before + delta * weight : before * (1 - weight) + mean[j] * weight);
  }
}

/// Merges a class's segments into its first one, in their order.
void merge_segments(const Segment* segments, int64_t count, double* mean, double* m2, int64_t columns) {
  double* const to_mean = mean + segments[0].partial * columns;
  double* const to_m2 = m2 + segments[0].partial * columns;
  double before = static_cast<double>(segments[0].count);
  for (int64_t k = 1; k < count; ++k) {
    const double n = static_cast<double>(segments[k].count);
    add(mean + segments[k].partial * columns, m2 + segments[k].partial * columns, n, before, to_mean, to_m2, columns);
    before += n;
  }
}

template <class Out>
void run(const Matrix& features, const SortedRows& sorted, const Moments& out, int threads) {
  const int64_t columns = features.columns;
  int64_t partials = 0;
  const std::vector<Segment> segments = cut(sorted.present, &partials);
  std::vector<double> partial_mean(static_cast<size_t>(partials * columns));
  std::vector<double> partial_m2(partial_mean.size());
  Out* const out_mean = static_cast<Out*>(out.mean);
  Out* const out_m2 = static_cast<Out*>(out.m2);
  const auto kernel = kernels().class_moments[static_cast<int>(features.type)];

  const int64_t panels = (columns + kMomentsPanel - 1) / kMomentsPanel;
  const int64_t tiles = static_cast<int64_t>(segments.size()) * panels;
  parallel_for(threads, tiles, [&](int64_t task, int) {
    const Segment& segment = segments[static_cast<size_t>(task / panels)];
    const int64_t column = task % panels * kMomentsPanel;
    const int64_t width = std::min(kMomentsPanel, columns - column);
    double mean[kMomentsPanel], m2[kMomentsPanel];
    const bool whole = segment.partial < 0;
    double* const to_mean = whole ? mean : partial_mean.data() + segment.partial * columns + column;
    double* const to_m2 = whole ? m2 : partial_m2.data() + segment.partial * columns + column;
    kernel({features, sorted.order.get() + segment.begin, segment.count, column, width, to_mean, to_m2});
    if (!whole) return;
    const int64_t at = segment.class_id * columns + column;
    add(mean, m2, static_cast<double>(segment.count), static_cast<double>(out.count[segment.class_id]), out_mean + at,
        out_m2 + at, width);
  });

  for (size_t first = 0; first < segments.size();) {
    size_t end = first + 1;
    while (end < segments.size() && segments[end].class_id == segments[first].class_id) ++end;
    if (segments[first].partial >= 0) {
      merge_segments(&segments[first], static_cast<int64_t>(end - first), partial_mean.data(), partial_m2.data(),
                     columns);
      double rows = 0;
      for (size_t k = first; k < end; ++k) rows += static_cast<double>(segments[k].count);
      const int64_t from = segments[first].partial * columns, id = segments[first].class_id;
      add(partial_mean.data() + from, partial_m2.data() + from, rows, static_cast<double>(out.count[id]),
          out_mean + id * columns, out_m2 + id * columns, columns);
    }
    first = end;
  }
  for (const SortedRows::Class& c : sorted.present) out.count[c.id] += c.count;
}

int64_t bytes_of(ElementType type) { return type == ElementType::float64 ? 8 : type == ElementType::float32 ? 4 : 2; }

}  // namespace

int64_t class_moments(const Matrix& features, const Labels& labels, const Moments& out, int threads) {
  SortedRows sorted;
  // From calloc: a page of it exists only once a class there is present.
  const std::unique_ptr<int64_t, void (*)(void*)> count(
      static_cast<int64_t*>(std::calloc(static_cast<size_t>(labels.num_classes), sizeof(int64_t))), std::free);
  if (count == nullptr) throw std::bad_alloc();
  const int64_t bad_row = sort_rows(labels, features.rows, count.get(), sorted);
  if (bad_row != kAllLabelsGood) return bad_row;
  const int64_t bytes = features.rows * features.columns * bytes_of(features.type);
  threads = static_cast<int>(std::min<int64_t>(threads, 1 + bytes / kBytesPerThread));
  if (features.type == ElementType::float64) {
    run<double>(features, sorted, out, threads);
  } else {
    run<float>(features, sorted, out, threads);
  }
  return kAllLabelsGood;
}

}  // namespace imbdyn
