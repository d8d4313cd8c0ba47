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

// Bytes of the sums of all classes up to which rows are read in the order in which they lie. Where they are more, what
// is paid once a class and span is more than reading class by class costs.
constexpr int64_t kBytesOfSums = 64 * 1024;
// Rows of a span for each class, so that merging spans is a small share of the work. At least so many spans, for there
// may be several threads, and at most so many, for each has moments of its own.
constexpr int64_t kSpanRowsOfClass = 512;
constexpr int64_t kLeastSpans = 4;
constexpr int64_t kMostSpans = 8;

/// Rows of one class, at most kSegmentRows of them.
struct Segment {
  int64_t class_id;
  int64_t begin;
  int64_t count;
  int64_t partial;  ///< its row in the partial results, -1 if it needs none, as the class's only segment
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

/// Merges a class's segments, whose moments are in rows `partial` of `mean` and `m2`, and adds them to the result.
template <class Out>
void add_segments(const Segment* segments, int64_t number, double* mean, double* m2, const Moments& out,
                  int64_t columns) {
  merge_segments(segments, number, mean, m2, columns);
  double rows = 0;
  for (int64_t k = 0; k < number; ++k) rows += static_cast<double>(segments[k].count);
  const int64_t from = segments[0].partial * columns, id = segments[0].class_id;
  add(mean + from, m2 + from, rows, static_cast<double>(out.count[id]), static_cast<Out*>(out.mean) + id * columns,
      static_cast<Out*>(out.m2) + id * columns, columns);
}

template <class Out>
void run_by_class(const Matrix& features, const SortedRows& sorted, const Moments& out, int threads) {
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
      add_segments<Out>(&segments[first], static_cast<int64_t>(end - first), partial_mean.data(), partial_m2.data(),
                        out, columns);
    }
    first = end;
  }
  for (const SortedRows::Class& c : sorted.present) out.count[c.id] += c.count;
}

/// Into how many spans the rows are cut, that one task each reads in the order in which they lie; 0 if they are to be
/// read class by class. By shape alone, so that the order of the sums does not follow the thread number.
int64_t count_spans(const Matrix& features, int64_t num_classes) {
  const int64_t columns = features.columns;
  const int64_t class_bytes = 3 * sizeof(float) * std::max<int64_t>(columns, 1);  // shift, sum and sum of squares
  // Outliers among a span's first rows cost a digit of float64, which is there for the last ones.
  if (features.type == ElementType::float64 || features.column_stride != 1 || columns > kMomentsPanel) return 0;
  if (num_classes > kBytesOfSums / class_bytes) return 0;
  const int64_t spans = features.rows / (kSpanRowsOfClass * num_classes);
  return spans < kLeastSpans ? 0 : std::min(kMostSpans, spans);
}

int64_t run_in_order(const Matrix& features, const Labels& labels, int64_t spans, const Moments& out, int threads) {
  const int64_t columns = features.columns, num_classes = labels.num_classes, size = num_classes * columns;
  const int64_t slots = std::clamp<int64_t>(threads, 1, spans);
  const int64_t most_rows = features.rows / spans + 1;
  const auto array = [](auto type, int64_t count) {  // not initialised: its pages come to the task that fills them
    return std::unique_ptr<decltype(type)[]>(new decltype(type)[static_cast<size_t>(count)]);
  };
  const auto mean = array(double(), spans * size), m2 = array(double(), spans * size);
  const auto sums = array(float(), slots * 3 * size);
  const auto order = array(int64_t(), slots * most_rows), count = array(int64_t(), spans * num_classes);
  std::vector<int64_t> bad_row(static_cast<size_t>(spans));
  const auto kernel = kernels().class_moments_in_order[static_cast<int>(features.type)];
  parallel_for(threads, spans, [&](int64_t span, int slot) {
    bad_row[static_cast<size_t>(span)] =
        kernel({features, labels, features.rows * span / spans, features.rows * (span + 1) / spans,
                count.get() + span * num_classes, mean.get() + span * size, m2.get() + span * size,
                sums.get() + slot * 3 * size, order.get() + slot * most_rows});
  });
  for (const int64_t row : bad_row) {
    if (row != kAllLabelsGood) return row;
  }
  parallel_for(threads, num_classes, [&](int64_t c, int) {
    Segment segments[kMostSpans];
    int64_t number = 0, rows = 0;
    for (int64_t span = 0; span < spans; ++span) {
      const int64_t row = span * num_classes + c;
      if (count[static_cast<size_t>(row)] == 0) continue;
      segments[number++] = {c, 0, count[static_cast<size_t>(row)], row};
      rows += count[static_cast<size_t>(row)];
    }
    if (number > 0) add_segments<float>(segments, number, mean.get(), m2.get(), out, columns);
    out.count[c] += rows;
  });
  return kAllLabelsGood;
}

int64_t bytes_of(ElementType type) { return type == ElementType::float64 ? 8 : type == ElementType::float32 ? 4 : 2; }

}  // namespace

int64_t class_moments(const Matrix& features, const Labels& labels, const Moments& out, int threads) {
  const int64_t bytes = features.rows * features.columns * bytes_of(features.type);
  threads = static_cast<int>(std::min<int64_t>(threads, 1 + bytes / kBytesPerThread));
  if (const int64_t spans = count_spans(features, labels.num_classes); spans > 0) {
    return run_in_order(features, labels, spans, out, threads);
  }
  SortedRows sorted;
  // From calloc: a page of it exists only once a class there is present.
  const std::unique_ptr<int64_t, void (*)(void*)> count(
      static_cast<int64_t*>(std::calloc(static_cast<size_t>(labels.num_classes), sizeof(int64_t))), std::free);
  if (count == nullptr) throw std::bad_alloc();
  const int64_t bad_row = sort_rows(labels, features.rows, count.get(), sorted);
  if (bad_row != kAllLabelsGood) return bad_row;
  const bool doubles = features.type == ElementType::float64;
  (doubles ? run_by_class<double> : run_by_class<float>)(features, sorted, out, threads);
  return kAllLabelsGood;
}

}  // namespace imbdyn
