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

/// What one thread packs into and sums in.
template <class T>
struct Scratch {
  std::unique_ptr<T[]> memory;
  T* scalars = nullptr;
  T* panels = nullptr;
  T* partial = nullptr;

  void prepare(int64_t scalars_size, int64_t panels_size, int64_t partial_size) {
    if (memory != nullptr) return;
    memory.reset(new T[static_cast<size_t>(scalars_size + panels_size + partial_size)]);
    scalars = memory.get();
    panels = scalars + scalars_size;
    partial = panels + panels_size;
    std::fill(scalars, panels, T(0));
  }
};

}  // namespace

template <class T>
void add_class_products(const PlaceSource<T>& source, const ProductShape& shape, const std::vector<ProductUnit>& units,
                        int64_t classes, double* gram, double* squares, int threads) {
  int64_t places = 0;
  for (const ProductUnit& unit : units) places += unit.places;
  const int64_t products = places * shape.rows * shape.columns * shape.groups;
  if (products == 0) return;
  threads = static_cast<int>(std::min<int64_t>(threads, 1 + products / kProductsPerThread));
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
  const int64_t all_columns = shape.columns * shape.groups;
  const int64_t most_columns = std::min(room / most_rows, std::max(source.least_columns(), cached));
  const int64_t slices = (all_columns + std::max<int64_t>(1, most_columns) - 1) / std::max<int64_t>(1, most_columns);
  const int64_t slice_columns = round_up((all_columns + slices - 1) / slices, lanes);
  std::vector<double> part_squares(squares == nullptr ? 0 : static_cast<size_t>(parts * num_units));
  std::unique_ptr<T[]> sum;
  int64_t sum_size = 0;

  for (int64_t first_block = 0, end_block = 0; first_block < num_blocks; first_block = end_block) {
    int64_t width = 0, panels_size = 0;
    do {
      ProductBlock& block = columns.blocks[static_cast<size_t>(end_block)];
      block.panel = panels_size;
      panels_size += block.lanes * source.most_places();
      width += block.width;
      ++end_block;
    } while (end_block < num_blocks && width + columns.blocks[static_cast<size_t>(end_block)].width <= slice_columns);
    ProductBlock* const blocks = columns.blocks.data() + first_block;
    const int64_t* const first_column = columns.first.data() + first_block;
    const int64_t scalars_size = source.place_scalars(blocks, first_column, end_block - first_block);

    for (int64_t row = 0; row < shape.rows; row += most_rows) {
      const int64_t rows = std::min(most_rows, shape.rows - row);
      int64_t length = 0;
      for (int64_t b = 0; b < end_block - first_block; ++b) {
        blocks[b].out = length;
        length += rows * blocks[b].width;
      }
      // An odd number of cache lines apart: rows a power of two apart would all want the same places of a cache.
      const int64_t line = 64 / static_cast<int64_t>(sizeof(T));
      const int64_t pitch =
          (length + line - 1) / line % 2 == 1 ? round_up(length, line) : round_up(length, line) + line;
      if (sum_size < sums * pitch) {
        sum_size = sums * pitch;
        sum.reset();
        sum.reset(new T[static_cast<size_t>(sum_size)]);
      }

      const int64_t tasks = num_ranges * parts;
      std::vector<Scratch<T>> scratch(static_cast<size_t>(std::min<int64_t>(threads, tasks)));
      parallel_for(threads, tasks, [&](int64_t task, int slot) {
        const int64_t index = task / parts, part = task % parts;
        const Range& range = ranges[static_cast<size_t>(index)];
        Scratch<T>& mine = scratch[static_cast<size_t>(slot)];
        mine.prepare(scalars_size, panels_size, length);
        ProductsChunk chunk{};
        chunk.panels = mine.panels;
        chunk.blocks = blocks;
        chunk.num_blocks = end_block - first_block;
        chunk.row_offset = source.row_offset() + row;
        chunk.first_row = rows * part / parts;
        chunk.rows = rows * (part + 1) / parts - chunk.first_row;
        chunk.partial = mine.partial;
        for (int64_t u = range.begin; u < range.end; ++u) {
          const int64_t c = units[static_cast<size_t>(u)].class_index;
          const bool apart = range.continues && c == units[static_cast<size_t>(range.begin)].class_index;
          chunk.sum = sum.get() + (apart ? classes + index : c) * pitch;
          const bool begins = u == range.begin || c != units[static_cast<size_t>(u - 1)].class_index;
          chunk.squares = squares == nullptr ? nullptr : part_squares.data() + part * num_units + u;
          const int64_t chunks = source.chunks(u);
          for (int64_t i = 0; i < chunks; ++i) {
            source.pack(u, i, first_column, mine.scalars, mine.panels, chunk);
            // Only a square needs the unit's whole product at once.
            chunk.first = squares == nullptr || i == 0;
            chunk.last = squares == nullptr || i == chunks - 1;
            chunk.fresh = begins && (squares != nullptr || i == 0);
            kernel(chunk);
          }
        }
      });
      for (int64_t r = 0; r < num_ranges; ++r) {
        const Range& range = ranges[static_cast<size_t>(r)];
        if (!range.continues) continue;
        const T* const from = sum.get() + (classes + r) * pitch;
        T* const to = sum.get() + units[static_cast<size_t>(range.begin)].class_index * pitch;
        for (int64_t k = 0; k < length; ++k) to[k] += from[k];
      }
      add_row_products(sum.get(), pitch, classes, length, gram, threads);
    }
  }
  for (size_t i = 0; i < part_squares.size(); ++i) squares[i % static_cast<size_t>(num_units)] += part_squares[i];
}

template void add_class_products<float>(const PlaceSource<float>&, const ProductShape&, const std::vector<ProductUnit>&,
                                        int64_t, double*, double*, int);
template void add_class_products<double>(const PlaceSource<double>&, const ProductShape&,
                                         const std::vector<ProductUnit>&, int64_t, double*, double*, int);

}  // namespace imbdyn
