#include "cpu/class_gram.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "common/thread_pool.h"
#include "cpu/class_products.h"
#include "cpu/dispatch.h"
#include "cpu/gram_result.h"
#include "cpu/kernels.h"
#include "cpu/row_products.h"

namespace imbdyn {
namespace {

// Rows of one chunk: a panel of so many rows stays in the first-level cache, and a float32 sum of them keeps its
// digits.
constexpr int64_t kChunkRows = 256;

int64_t bytes_of(ElementType type) { return type == ElementType::float64 ? 8 : type == ElementType::float32 ? 4 : 2; }

/// Rows of two matrices as places, both cut into panels.
template <class T>
class RowPlaces final : public PlaceSource<T> {
 public:
  /// `scalars` with no data stands for a column of ones. Units are runs of `order`.
  RowPlaces(const Matrix& scalars, const Matrix& vectors, const int64_t* order, const std::vector<int64_t>& begins)
      : scalars_(scalars), vectors_(vectors), order_(order), begins_(begins) {
    int64_t longest = 0;
    for (size_t u = 0; u + 1 < begins.size(); ++u) longest = std::max(longest, begins[u + 1] - begins[u]);
    most_places_ = std::min(longest, kChunkRows);
    // S lies in panels too: rows far apart would take a page of memory each. An odd number of lines: see Sums.
    const int64_t panel = (most_places_ | 1) * lanes();
    for (int64_t m = 0; m < scalars.columns; ++m) row_offset_.push_back(m / lanes() * panel + m % lanes());
    for (int64_t first = 0; first < scalars.columns; first += lanes()) {
      scalar_column_.push_back(first * scalars.column_stride);
      scalar_panel_.push_back(first / lanes() * panel);
    }
    scalars_size_ = static_cast<int64_t>(scalar_panel_.size()) * panel;
    for (int64_t i = 0; i < most_places_; ++i) {
      for (int half = 0; half < 2; ++half) packed_place_[half].push_back(i * (lanes() >> half));
    }
  }

  const int64_t* row_offset() const override { return row_offset_.data(); }
  int64_t most_places() const override { return most_places_; }
  int64_t least_columns() const override { return 128; }
  int64_t place_scalars(ProductBlock*, const int64_t*, int64_t) const override {
    return scalars_.data == nullptr ? 0 : scalars_size_;
  }
  int64_t chunks(int64_t unit) const override { return (rows_of(unit) + kChunkRows - 1) / kChunkRows; }

  void pack(int64_t unit, int64_t index, const int64_t* first_column, T* scalars, T* panels,
            ProductsChunk& chunk) const override {
    const int64_t* const order = order_ + begins_[static_cast<size_t>(unit)] + index * kChunkRows;
    const int64_t rows = std::min(kChunkRows, rows_of(unit) - index * kChunkRows);
    static constexpr int64_t kNoOffset = 0;
    static constexpr T kOne = 1;
    if (scalars_.data != nullptr) pack_scalars(order, rows, scalars);
    pack_vectors(order, rows, first_column, panels, chunk);
    chunk.scalars = scalars_.data == nullptr ? &kOne : scalars;
    chunk.line_offset = &kNoOffset;
    chunk.lines = 1;
    chunk.width = rows;
    chunk.step = scalars_.data == nullptr ? 0 : lanes();
  }

 private:
  /// A row is read once from left to right; where it is one panel, all rows are one job.
  void pack_scalars(const int64_t* order, int64_t rows, T* scalars) const {
    const auto copy = kernels().copy_lines[static_cast<int>(scalars_.type)];
    const int64_t count = static_cast<int64_t>(scalar_panel_.size());
    if (count == 1) {
      int64_t from[kChunkRows];
      for (int64_t i = 0; i < rows; ++i) from[i] = order[i] * scalars_.row_stride;
      copy({scalars_.data, 1, 0, from, rows, scalars_.columns, scalars_.column_stride, scalars, 0,
            packed_place_[0].data()});
      return;
    }
    const int64_t last = scalars_.columns - (count - 1) * lanes();
    for (int64_t i = 0; i < rows; ++i) {
      const void* const row =
          static_cast<const char*>(scalars_.data) + order[i] * scalars_.row_stride * bytes_of(scalars_.type);
      T* const to = scalars + i * lanes();
      copy({row, 1, 0, scalar_column_.data(), count - 1, lanes(), scalars_.column_stride, to, 0, scalar_panel_.data()});
      copy({row, 1, 0, &scalar_column_.back(), 1, last, scalars_.column_stride, to, 0, &scalar_panel_.back()});
    }
  }

  void pack_vectors(const int64_t* order, int64_t rows, const int64_t* first_column, T* panels,
                    const ProductsChunk& chunk) const {
    const int type = static_cast<int>(vectors_.type);
    const int64_t bytes = bytes_of(vectors_.type);
    const char* const data = static_cast<const char*>(vectors_.data);
    // Full panels lie equally far apart: a row is read once from left to right.
    int64_t full = 0;
    std::vector<int64_t> column, panel;
    for (; vectors_.column_stride == 1 && full < chunk.num_blocks && chunk.blocks[full].width == lanes(); ++full) {
      column.push_back(first_column[full]);
      panel.push_back(chunk.blocks[full].panel);
    }
    for (int64_t i = 0; i < rows && full > 0; ++i) {
      kernels().copy_lines[type]({data + order[i] * vectors_.row_stride * bytes, 1, 0, column.data(), full, lanes(), 1,
                                  panels + i * lanes(), 0, panel.data()});
    }
    int64_t from[kChunkRows];
    for (int64_t i = 0; i < rows; ++i) from[i] = order[i] * vectors_.row_stride;
    for (int64_t b = full; b < chunk.num_blocks; ++b) {
      const ProductBlock& block = chunk.blocks[b];
      kernels().pack_lines[type]({data + first_column[b] * vectors_.column_stride * bytes, vectors_.column_stride, 0,
                                  from, rows, 1, block.width, block.lanes, panels + block.panel,
                                  packed_place_[block.lanes == lanes() ? 0 : 1].data()});
    }
  }

  static int64_t lanes() { return 2 * kernels().vector_bytes / static_cast<int64_t>(sizeof(T)); }
  int64_t rows_of(int64_t unit) const {
    return begins_[static_cast<size_t>(unit) + 1] - begins_[static_cast<size_t>(unit)];
  }

  Matrix scalars_;
  Matrix vectors_;
  const int64_t* order_;
  const std::vector<int64_t>& begins_;
  int64_t most_places_ = 0;
  int64_t scalars_size_ = 0;
  std::vector<int64_t> row_offset_;
  std::vector<int64_t> scalar_column_;
  std::vector<int64_t> scalar_panel_;
  std::vector<int64_t> packed_place_[2];
};

/// Rows ordered by class and sample, and the runs of rows that are a sample's.
struct Ordered {
  PairedRows rows;
  std::vector<int64_t> sample_begins;  ///< and the end
  int64_t longest_sample = 0;
};

Ordered order_rows(const Matrix& inputs, const Matrix& grad_outputs, const Samples& samples, SortedRows& sorted) {
  Ordered ordered{
      {inputs, grad_outputs, sorted.order.get(), {}, {}, 0, static_cast<int64_t>(sorted.present.size())}, {}, 0};
  PairedRows& rows = ordered.rows;
  const auto sample = [&](int64_t row) { return samples.data[row * samples.stride]; };
  int64_t index = 0, unit = -1;
  for (const SortedRows::Class& c : sorted.present) {
    int64_t* const begin = sorted.order.get() + c.begin;
    int64_t* const end = begin + c.count;
    if (samples.data != nullptr) {
      const auto before = [&](int64_t a, int64_t b) { return sample(a) < sample(b); };
      if (!std::is_sorted(begin, end, before)) std::stable_sort(begin, end, before);
    }
    for (const int64_t* row = begin; row != end; ++row) {
      if (row == begin || samples.data == nullptr || sample(row[0]) != sample(row[-1])) {
        ordered.sample_begins.push_back(row - sorted.order.get());
        ++unit;
      }
      rows.class_index.push_back(index);
      rows.unit.push_back(unit);
    }
    ++index;
  }
  rows.rows = static_cast<int64_t>(rows.unit.size());
  ordered.sample_begins.push_back(rows.rows);
  for (size_t u = 0; u + 1 < ordered.sample_begins.size(); ++u) {
    ordered.longest_sample = std::max(ordered.longest_sample, ordered.sample_begins[u + 1] - ordered.sample_begins[u]);
  }
  return ordered;
}

/// Runs of at most kChunkRows rows of one class, and the end.
std::vector<int64_t> cut_classes(const SortedRows& sorted) {
  std::vector<int64_t> begins;
  for (const SortedRows::Class& c : sorted.present) {
    for (int64_t done = 0; done < c.count; done += kChunkRows) begins.push_back(c.begin + done);
  }
  begins.push_back(sorted.present.back().begin + sorted.present.back().count);
  return begins;
}

/// What the ways cost, in multiply-adds of a core at full speed. Counted: multiply-adds; measured: what a tile of 6 x
/// 16 costs beside them (adding it to the class's sum, squaring it), how much slower dot products are (4 x 3 tiles,
/// sums across lanes), and passes over memory.
struct Costs {
  double gram, direct, sample;
};

Costs count_costs(const Ordered& ordered, bool norms) {
  constexpr double kTile = 700;     // of a product, beside its multiply-adds
  constexpr double kDot = 1.3;      // of a multiply-add of a dot product
  constexpr double kShortDot = 40;  // of a dot product, beside its multiply-adds
  constexpr double kPacked = 8;     // of a number packed, or of a sum written and read
  const double rows = static_cast<double>(ordered.rows.rows), classes = static_cast<double>(ordered.rows.classes);
  const double samples = static_cast<double>(ordered.sample_begins.size() - 1);
  const double inputs = static_cast<double>(ordered.rows.inputs.columns);
  const double outputs = static_cast<double>(ordered.rows.grad_outputs.columns);
  const double read = inputs + outputs, size = inputs * outputs;
  const auto pairs = [&](double count) { return count * ((read * kDot) + 2 * kShortDot); };
  const double common =
      rows * size + kPacked * rows * read + size * (classes * (classes + 1) / 2 * kDot + kPacked * (classes + 4));
  const double tiles = std::max(1.0, size / 96);
  const double chunks = classes + rows / static_cast<double>(kChunkRows);
  const double within = rows * static_cast<double>(ordered.longest_sample + 1) / 2;
  return {
      pairs(rows * (rows + 48) / 2),
      common + chunks * tiles * kTile + (norms ? pairs(within) : 0),
      common + samples * tiles * kTile,
  };
}

/// Sums of one parameter, by unit and by class.
struct Wanted {
  double* gram;
  double* norms;
  std::vector<double> squares;

  Wanted(GramResult& result, bool by_sample, size_t units)
      : gram(result.gram()), norms(by_sample ? result.norms() : nullptr), squares(norms == nullptr ? 0 : units) {}

  ProductSums sums() { return {gram, norms == nullptr ? nullptr : squares.data()}; }

  void store(const std::vector<ProductUnit>& units) const {
    for (size_t u = 0; u < squares.size(); ++u) norms[units[u].class_index] += squares[u];
  }
};

template <class T>
void add_products(const Ordered& ordered, const SortedRows& sorted, bool by_sample, GramResult& weight,
                  GramResult& bias, int threads) {
  const PairedRows& rows = ordered.rows;
  const std::vector<int64_t> class_begins = by_sample ? std::vector<int64_t>() : cut_classes(sorted);
  const std::vector<int64_t>& begins = by_sample ? ordered.sample_begins : class_begins;
  std::vector<ProductUnit> units;
  units.reserve(begins.size() - 1);
  for (size_t u = 0; u + 1 < begins.size(); ++u) {
    units.push_back({rows.class_index[static_cast<size_t>(begins[u])], begins[u + 1] - begins[u]});
  }
  Wanted of_weight(weight, by_sample, units.size()), of_bias(bias, by_sample, units.size());
  // V gets the matrix whose columns fill its panels better: the two may change places, for a product's norm and inner
  // products do not depend on which is which.
  const int64_t half = kernels().vector_bytes / static_cast<int64_t>(sizeof(T));
  const auto filled = [&](const Matrix& m) {
    return static_cast<double>(m.columns) / static_cast<double>((m.columns + half - 1) / half * half);
  };
  const Matrix& inputs = rows.inputs;
  const Matrix& grads = rows.grad_outputs;
  const Matrix ones{nullptr, grads.type, grads.rows, 1, 0, 0};
  const auto multiply = [&](const Matrix& scalars, const Matrix& vectors, const ProductSums& to,
                            const ProductSums& plain) {
    const RowPlaces<T> source(scalars, vectors, rows.order, begins);
    add_class_products<T>(source, {1, scalars.columns, vectors.columns, false}, units, rows.classes, to, plain,
                          threads);
  };
  const ProductSums none{nullptr, nullptr};
  if (inputs.columns > 0 && filled(inputs) <= filled(grads)) {
    multiply(inputs, grads, of_weight.sums(), of_bias.sums());
  } else {
    multiply(grads, inputs, of_weight.sums(), none);
    if (of_bias.gram != nullptr) multiply(ones, grads, of_bias.sums(), none);
  }
  of_weight.store(units);
  of_bias.store(units);
}

}  // namespace

int64_t class_gram_rows(const Matrix& inputs, const Matrix& grad_outputs, const Labels& labels, const Samples& samples,
                        GramWay way, const GramOut& weight, const GramOut& bias, int threads) {
  SortedRows sorted;
  std::unique_ptr<int64_t[]> count(new int64_t[static_cast<size_t>(labels.num_classes)]());
  const int64_t bad_row = sort_rows(labels, grad_outputs.rows, count.get(), sorted);
  if (bad_row != kAllLabelsGood || sorted.present.empty()) return bad_row;
  const Ordered ordered = order_rows(inputs, grad_outputs, samples, sorted);
  const bool norms = weight.sample_norm_sq != nullptr;
  const Costs costs = count_costs(ordered, norms);
  if (inputs.columns == 0 || grad_outputs.columns == 0) {
    way = GramWay::sample;  // the one that makes nothing of nothing: in pairs of rows, 0 times NaN would be NaN
  } else if (way == GramWay::cheapest) {
    const double least = std::min({costs.gram, costs.direct, costs.sample});
    way = least == costs.gram ? GramWay::gram : least == costs.direct ? GramWay::direct : GramWay::sample;
  }

  GramResult of_weight(sorted, labels.num_classes, weight), of_bias(sorted, labels.num_classes, bias);
  if (way == GramWay::gram) {
    add_pairs_of_rows(ordered.rows, {of_weight.gram(), of_weight.norms()}, {of_bias.gram(), of_bias.norms()}, threads);
  } else {
    const bool by_sample = way == GramWay::sample;
    const auto products = inputs.type == ElementType::float64 ? add_products<double> : add_products<float>;
    products(ordered, sorted, by_sample, of_weight, of_bias, threads);
    if (!by_sample && norms) add_pairs_within_samples(ordered.rows, of_weight.norms(), of_bias.norms(), threads);
  }
  of_weight.store();
  of_bias.store();
  return kAllLabelsGood;
}

}  // namespace imbdyn
