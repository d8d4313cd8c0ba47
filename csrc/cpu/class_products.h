// Class gradients as sums of products over places (rows, tokens, pixels), and their inner products, at the cost of one
// weight gradient whatever the number of classes.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kernels.h"

namespace imbdyn {

/// Places whose products are added before they are squared: those of one sample, or of one class.
struct ProductUnit {
  int64_t class_index;  ///< units ascend by it
  int64_t places;
};

/// The product of one unit: for each group, rows of S times columns of V.
struct ProductShape {
  int64_t groups;
  int64_t rows;
  int64_t columns;
  /// Every column is multiplied by rows of its own; one group.
  bool depthwise;
};

/// Where a unit's places come from, packed as the kernels read them. T is the type of the arithmetic.
template <class T>
class PlaceSource {
 public:
  virtual ~PlaceSource() = default;

  /// Of each row of S: its offset.
  virtual const int64_t* row_offset() const = 0;
  /// Most places of one chunk: a panel has room for so many.
  virtual int64_t most_places() const = 0;
  /// Columns below which packing S again for a slice of them costs more than it saves.
  virtual int64_t least_columns() const = 0;
  /// Numbers that S takes where it has to be packed for these blocks (zeroed once), else 0. Sets their `scalars`.
  virtual int64_t place_scalars(ProductBlock* blocks, const int64_t* first_column, int64_t num_blocks) const = 0;
  virtual int64_t chunks(int64_t unit) const = 0;
  /// Packs one chunk (and on the first one, what all chunks of the unit share) and sets what of `chunk` it decides:
  /// scalars, line_offset, lines, width, step. `first_column` counts through all groups.
  virtual void pack(int64_t unit, int64_t index, const int64_t* first_column, T* scalars, T* panels,
                    ProductsChunk& chunk) const = 0;
};

/// What units and classes add up to.
struct ProductSums {
  double* gram;     ///< [classes, classes], added to; null: the product is not wanted
  double* squares;  ///< [units], added to; null: not wanted
};

/// gram [classes, classes] += the inner products of the classes' sums; squares [units] += the squared norm of each
/// unit's product. `plain` is the same with a single row of ones for S: the sums of V's columns, made from the same
/// panels.
///
/// Bound by multiply-adds: places rows columns groups, and half of classes^2 for each element of a product. Bitwise
/// repeatable for a number of threads. Memory: at most 64 MiB for the sums, one packed unit and one product a thread.
template <class T>
void add_class_products(const PlaceSource<T>& source, const ProductShape& shape, const std::vector<ProductUnit>& units,
                        int64_t classes, const ProductSums& products, const ProductSums& plain, int threads);

}  // namespace imbdyn
