#include "cpu/class_products.h"

#include <algorithm>
#include <memory>

#include "common/thread_pool.h"
#include "cpu/dispatch.h"
#include "cpu/row_products.h"

namespace imbdyn {
namespace {

// Bytes that the classes' sums may take at once; a larger product is made a slice of columns at a time. Slices are
// rather cut so that the sums stay in the third-level cache and in memory that the allocator has at hand, as long as
// packing S once more for each does not cost more.
constexpr int64_t kScratchBytes = int64_t{1} << 26;
constexpr int64_t kCachedBytes = int64_t{1} << 23;
// Multiply-adds below which waking a thread costs more than it saves.
constexpr int64_t kProductsPerThread = 400'000;
// Ranges of units for each thread: more even out what threads lose to others, and each may cost a sum of its own.
constexpr int64_t kRangesPerThread = 2;

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/// Columns as panels of two vectors, or one where few are left; none reaches into the next group.
struct Columns {
  std::vector<ProductBlock> blocks;
  std::vector<int64_t> first;  ///< column of each block, counted through all groups

  Columns(const ProductShape& shape, int64_t lanes) {
    for (int64_t group = 0; group < shape.groups; ++group) {
      for (int64_t column = 0; column < shape.columns;) {
        const int64_t left = shape.columns - column;
        const int64_t panel = left > lanes / 2 ? lanes : lanes / 2;
        const int64_t width = std::min(panel, left);
        blocks.push_back({width, panel, 0, 0, 0});
        first.push_back(group * shape.columns + column);
        column += width;
      }
    }
  }
};

/// Neighbouring units that one task takes. Where the first one's class began in an earlier range, the range sums that
/// class apart.
struct Range {
  int64_t begin;
  int64_t end;
  bool continues;
};

std::vector<Range> cut(const std::vector<ProductUnit>& units, int64_t wanted) {
  int64_t total = 0;
  for (const ProductUnit& unit : units) total += unit.places;
  std::vector<Range> ranges;
  const int64_t count = static_cast<int64_t>(units.size());
  int64_t done = 0;
  for (int64_t begin = 0; begin < count;) {
    int64_t end = begin;
    const int64_t goal = total * (static_cast<int64_t>(ranges.size()) + 1) / wanted;
    do done += units[static_cast<size_t>(end++)].places;
    while (end < count && done + units[static_cast<size_t>(end)].places / 2 < goal);
    const bool continues =
        begin > 0 && units[static_cast<size_t>(begin)].class_index == units[static_cast<size_t>(begin - 1)].class_index;
    ranges.push_back({begin, end, continues});
    begin = end;
  }
  return ranges;
}

/// The classes' sums of one product, and the units' squares.
template <class T>
class Sums {
 public:
  Sums(const ProductSums& to, const std::vector<ProductUnit>& units, const std::vector<Range>& ranges, int64_t classes,
       int64_t parts)
      : to_(to), units_(units), ranges_(ranges), classes_(classes) {
    if (to.squares != nullptr) squares_.resize(static_cast<size_t>(parts) * units.size());
  }

  bool wanted() const { return to_.gram != nullptr; }

  /// Begins a slice of `rows` rows, those of S or (`ones`) one row of ones: sets where the blocks' parts go.
  void begin(const ProductBlock* blocks, int64_t num_blocks, int64_t rows, bool ones) {
    blocks_.assign(blocks, blocks + num_blocks);
    length_ = 0;
    for (ProductBlock& block : blocks_) {
      if (ones) block.scalars = 0;
      block.out = length_;
      length_ += rows * block.width;
    }
    // An odd number of cache lines apart: rows a power of two apart would all want the same places of a cache.
    const int64_t line = 64 / static_cast<int64_t>(sizeof(T));
    pitch_ = ((length_ + line - 1) / line | 1) * line;
    const int64_t size = (classes_ + static_cast<int64_t>(ranges_.size())) * pitch_;
    if (size <= size_) return;
    sum_.reset();
    sum_.reset(new T[static_cast<size_t>(size)]);
    size_ = size;
  }

  int64_t length() const { return length_; }

  /// Sets where the product of a unit's chunk goes.
  void place(int64_t range, int64_t part, int64_t unit, int64_t index, int64_t chunks, T* partial,
             ProductsChunk& chunk) {
    const int64_t first = ranges_[static_cast<size_t>(range)].begin;
    const int64_t c = class_of(unit);
    const bool apart = ranges_[static_cast<size_t>(range)].continues && c == class_of(first);
    const bool begins = unit == first || c != class_of(unit - 1);
    const bool squared = to_.squares != nullptr;
    chunk.blocks = blocks_.data();
    chunk.num_blocks = static_cast<int64_t>(blocks_.size());
    chunk.sum = sum_.get() + (apart ? classes_ + range : c) * pitch_;
    chunk.squares = squared ? squares_.data() + part * static_cast<int64_t>(units_.size()) + unit : nullptr;
    chunk.partial = partial;
    // Only a square needs the unit's whole product at once.
    chunk.first = !squared || index == 0;
    chunk.last = !squared || index == chunks - 1;
    chunk.fresh = begins && (squared || index == 0);
  }

  /// Ends the slice: adds what ranges summed apart, then the inner products.
  void end(int threads) {
    for (size_t r = 0; r < ranges_.size(); ++r) {
      if (!ranges_[r].continues) continue;
      const T* const from = sum_.get() + (classes_ + static_cast<int64_t>(r)) * pitch_;
      T* const to = sum_.get() + class_of(ranges_[r].begin) * pitch_;
      for (int64_t k = 0; k < length_; ++k) to[k] += from[k];
    }
    add_row_products(sum_.get(), pitch_, classes_, length_, to_.gram, threads);
  }

  void store_squares() const {
    for (size_t i = 0; i < squares_.size(); ++i) to_.squares[i % units_.size()] += squares_[i];
  }

 private:
  int64_t class_of(int64_t unit) const { return units_[static_cast<size_t>(unit)].class_index; }

  ProductSums to_;
  const std::vector<ProductUnit>& units_;
  const std::vector<Range>& ranges_;
  int64_t classes_;
  std::vector<ProductBlock> blocks_;
  std::vector<double> squares_;
  std::unique_ptr<T[]> sum_;
  int64_t size_ = 0, length_ = 0, pitch_ = 0;
};

/// What one thread packs into and sums in.
template <class T>
struct Scratch {
  std::unique_ptr<T[]> memory;
  T* scalars = nullptr;
  T* panels = nullptr;
  T* partial = nullptr;
  T* plain_partial = nullptr;

  void prepare(int64_t scalars_size, int64_t panels_size, int64_t partial_size, int64_t plain_size) {
    if (memory != nullptr) return;
    memory.reset(new T[static_cast<size_t>(scalars_size + panels_size + partial_size + plain_size)]);
    scalars = memory.get();
    panels = scalars + scalars_size;
    partial = panels + panels_size;
    plain_partial = partial + partial_size;
    std::fill(scalars, panels, T(0));
  }
};

}  // namespace

template <class T>
void add_class_products(const PlaceSource<T>& source, const ProductShape& shape, const std::vector<ProductUnit>& units,
                        int64_t classes, const ProductSums& products, const ProductSums& plain, int threads) {
  int64_t places = 0;
  for (const ProductUnit& unit : units) places += unit.places;
  const int64_t all_columns = shape.columns * shape.groups;
  const int64_t multiply_adds = places * shape.rows * all_columns;
  if (multiply_adds == 0) return;
  threads = static_cast<int>(std::min<int64_t>(threads, 1 + multiply_adds / kProductsPerThread));
  const int64_t num_units = static_cast<int64_t>(units.size());
  const std::vector<Range> ranges = cut(units, threads == 1 ? 1 : std::min(num_units, threads * kRangesPerThread));
  const int64_t num_ranges = static_cast<int64_t>(ranges.size());
  // Fewer units than threads: their rows are shared out too.
  const int64_t parts = num_ranges >= threads ? 1
                                              : std::min<int64_t>((threads + num_ranges - 1) / num_ranges,
                                                                  (shape.rows + kProductRows - 1) / kProductRows);

  const int real = sizeof(T) == sizeof(double) ? 0 : 1;
  const int64_t lanes = 2 * kernels().vector_bytes / static_cast<int64_t>(sizeof(T));
  const auto kernel = shape.depthwise ? kernels().depthwise_products[real] : kernels().class_products[real];
  Columns columns(shape, lanes);
  const int64_t num_blocks = static_cast<int64_t>(columns.blocks.size());
  const int64_t sums = classes + num_ranges;
  const int64_t room = std::max<int64_t>(1, kScratchBytes / static_cast<int64_t>(sizeof(T)) / sums);
  const int64_t most_rows = std::min(shape.rows, std::max<int64_t>(kProductRows, room / lanes));
  const int64_t cached = kCachedBytes / static_cast<int64_t>(sizeof(T)) / sums / most_rows;
  const int64_t most_columns =
      std::max<int64_t>(1, std::min(room / most_rows, std::max(source.least_columns(), cached)));
  const int64_t slices = (all_columns + most_columns - 1) / most_columns;
  const int64_t slice_columns = round_up((all_columns + slices - 1) / slices, lanes);
  Sums<T> product_sums(products, units, ranges, classes, parts), plain_sums(plain, units, ranges, classes, parts);
  static constexpr T kOne = 1;
  static constexpr int64_t kNoOffset = 0;

  for (int64_t first_block = 0, end_block = 0; first_block < num_blocks; first_block = end_block) {
    int64_t width = 0, panels_size = 0;
    do {
      ProductBlock& block = columns.blocks[static_cast<size_t>(end_block)];
      block.panel = panels_size;
      panels_size += block.lanes * (source.most_places() | 1);  // odd: see Sums
      width += block.width;
      ++end_block;
    } while (end_block < num_blocks && width + columns.blocks[static_cast<size_t>(end_block)].width <= slice_columns);
    ProductBlock* const blocks = columns.blocks.data() + first_block;
    const int64_t* const first_column = columns.first.data() + first_block;
    const int64_t in_slice = end_block - first_block;
    const int64_t scalars_size = source.place_scalars(blocks, first_column, in_slice);

    for (int64_t row = 0; row < shape.rows; row += most_rows) {
      const int64_t rows = std::min(most_rows, shape.rows - row);
      const bool with_plain = plain_sums.wanted() && row == 0;
      product_sums.begin(blocks, in_slice, rows, false);
      if (with_plain) plain_sums.begin(blocks, in_slice, 1, true);

      const int64_t tasks = num_ranges * parts;
      std::vector<Scratch<T>> scratch(static_cast<size_t>(std::min<int64_t>(threads, tasks)));
      parallel_for(threads, tasks, [&](int64_t task, int slot) {
        const int64_t index = task / parts, part = task % parts;
        const Range& range = ranges[static_cast<size_t>(index)];
        Scratch<T>& mine = scratch[static_cast<size_t>(slot)];
        mine.prepare(scalars_size, panels_size, product_sums.length(), width);
        ProductsChunk chunk{};
        chunk.panels = mine.panels;
        for (int64_t u = range.begin; u < range.end; ++u) {
          const int64_t chunks = source.chunks(u);
          for (int64_t i = 0; i < chunks; ++i) {
            product_sums.place(index, part, u, i, chunks, mine.partial, chunk);
            chunk.row_offset = source.row_offset() + row;
            chunk.first_row = rows * part / parts;
            chunk.rows = rows * (part + 1) / parts - chunk.first_row;
            source.pack(u, i, first_column, mine.scalars, mine.panels, chunk);
            kernel(chunk);
            if (!with_plain || part != 0) continue;
            plain_sums.place(index, part, u, i, chunks, mine.plain_partial, chunk);
            chunk.scalars = &kOne;
            chunk.row_offset = chunk.line_offset = &kNoOffset;
            chunk.first_row = 0;
            chunk.rows = 1;
            chunk.width *= chunk.lines;
            chunk.lines = 1;
            chunk.step = 0;
            kernels().class_products[real](chunk);
          }
        }
      });
      product_sums.end(threads);
      if (with_plain) plain_sums.end(threads);
    }
  }
  product_sums.store_squares();
  plain_sums.store_squares();
}

template void add_class_products<float>(const PlaceSource<float>&, const ProductShape&, const std::vector<ProductUnit>&,
                                        int64_t, const ProductSums&, const ProductSums&, int);
template void add_class_products<double>(const PlaceSource<double>&, const ProductShape&,
                                         const std::vector<ProductUnit>&, int64_t, const ProductSums&,
                                         const ProductSums&, int);

}  // namespace imbdyn
