// The inner kernels: compiled once per instruction set (isa_*.cpp), reached through one table of function pointers.
#pragma once

#include "common/arrays.h"

namespace imbdyn {

/// Widest panel of columns that one call of a moments kernel takes: what it holds on its stack grows with it. Narrower
/// ones would read a row in pieces, each on other pages than the piece before.
constexpr int64_t kMomentsPanel = 2048;

/// Some rows of one class and some columns of the features.
struct MomentsTile {
  Matrix features;
  const int64_t* rows;  ///< [num_rows] row numbers, at least one
  int64_t num_rows;
  int64_t first_column;
  int64_t num_columns;  ///< 1..kMomentsPanel
  double* mean;         ///< [num_columns], written
  double* m2;           ///< [num_columns], written: sum of squared deviations from that mean
};

/// Consecutive rows of several classes, at most kMomentsPanel columns with stride 1.
struct MomentsSpan {
  Matrix features;
  Labels labels;
  int64_t first_row;
  int64_t end_row;
  int64_t* count;  ///< [C], written: rows of each class
  double* mean;    ///< [C, D], written where count is not 0
  double* m2;      ///< [C, D], likewise
  float* sums;     ///< [3 C D], to be used
  int64_t* order;  ///< [end_row - first_row], at least 4 C, to be used
};

/// The order of the rows of the sums of class_logits, as in imbdyn.ops.ClassLogits.
enum LogitSum { kCount, kLoss, kCorrect, kMargin, kConfidence, kPredicted, kPositive, kNegative, kLogitSums };

/// Rows that a logits kernel takes at a time when it works across rows, and the most classes for which it does:
/// few classes do not fill a vector, and strided rows are read where their elements are neighbours.
constexpr int64_t kLogitRows = 64;
constexpr int64_t kFewClasses = 48;
constexpr int64_t kFewClassesStrided = 1024;

static constexpr bool few_classes(int64_t num_classes, int64_t column_stride) {
  return num_classes <= (column_stride == 1 ? kFewClasses : kFewClassesStrided);
}

/// Consecutive rows of the logits.
struct LogitsTile {
  Matrix logits;
  Labels labels;
  int64_t first_row;
  int64_t end_row;
  double* sums;   ///< [kLogitSums, C], added to
  void* scratch;  ///< C times kLogitRows (across rows) or 3 (else) numbers of 8 bytes
};

/// Sums over elements of one tensor, with dw = w - previous; 0 for what was not given.
struct NormSums {
  double weight;         ///< sum of w^2
  double grad;           ///< sum of grad^2
  double update;         ///< sum of dw^2
  double weight_update;  ///< sum of w dw
};

/// Elements that lie one after another and are only read.
struct FlatArray {
  const void* data;
  ElementType type;
  bool given;  ///< not told by `data`, which is null in an empty tensor too
};

/// A weight w and what was given beside it: three arrays that have the same element at the same place.
struct Parameter {
  FlatArray weight;
  FlatArray grad;
  FlatArray previous;
  int64_t count;  ///< elements of each
};

/// Consecutive elements of one parameter.
struct NormsTile {
  Parameter parameter;
  int64_t begin;
  int64_t count;
  NormSums* sums;  ///< added to
};

/// Most channels that one call of a kernel for channel moments takes.
constexpr int64_t kNormChannels = 256;

/// Of one channel of one unit.
struct ChannelMoments {
  double mean;    ///< of x
  double m2;      ///< sum of (x - mean)^2
  double sum_dy;  ///< sum of dy
  double cross;   ///< sum of dy (x - mean)
};

/// Some channels of one unit. Both matrices are [channels, places], and both have column stride 1 or row stride 1.
struct ChannelsTile {
  Matrix x;
  Matrix dy;
  int64_t first_channel;
  int64_t num_channels;  ///< 1..kNormChannels
  ChannelMoments* out;   ///< [num_channels], written; 0 without a place
};

/// The rows of one unit, each of which is normalised by its own statistics.
struct NormRowsTile {
  Matrix x;  ///< [rows, columns], column stride 1, at least one column
  Matrix dy;
  bool centred;  ///< whether the mean is taken off
  double eps;
  double (*square_root)(double);
  double* weight;  ///< [columns], added to: sum of dy xhat
  double* bias;    ///< [columns], added to: sum of dy
  void* scratch;   ///< 2 columns numbers of 8 bytes
};

/// Most rows of one tile of a product.
constexpr int64_t kProductRows = 6;

/// Neighbouring columns of the vector operand of a product, and what multiplies them.
struct ProductBlock {
  int64_t width;    ///< columns, at most `lanes`
  int64_t lanes;    ///< of its panel: those of two vectors, or of one
  int64_t panel;    ///< where its panel [places, lanes] begins
  int64_t scalars;  ///< where the rows of S that multiply it begin
  int64_t out;      ///< where its part [rows, width] of the product begins
};

/// Some places (rows, tokens, pixels) of one sample or class, packed, and where their product goes. Arrays are of the
/// type that the arithmetic is done in.
struct ProductsChunk {
  const void* panels;
  const void* scalars;
  const ProductBlock* blocks;
  int64_t num_blocks;
  const int64_t* row_offset;  ///< of each row of S
  int64_t first_row;          ///< rows first_row .. first_row + rows - 1 are taken
  int64_t rows;
  const int64_t* line_offset;  ///< [lines] in S; in the panels lines follow each other
  int64_t lines;
  int64_t width;  ///< places of a line
  int64_t step;   ///< from one place to the next in S
  void* partial;  ///< the product of the chunks before (unless `first`) and up to this one (unless `last`)
  bool first;     ///< of its sample
  bool last;      ///< of its sample: the product goes to `sum`
  void* sum;      ///< added to; written if `fresh`
  bool fresh;
  double* squares;  ///< the product's squared norm is added to it; null: not wanted
};

/// Two sets of rows whose inner products are wanted.
struct DotsBlock {
  const void* const* a;  ///< [a_rows] rows of `length` numbers
  int64_t a_rows;
  const void* const* b;
  int64_t b_rows;
  int64_t length;
  bool upper;   ///< a and b are the same: out[i][j] with j < i need not be right
  double* out;  ///< [a_rows, pitch], added to
  int64_t pitch;
};

/// Lines of places to be laid out as a panel [places, lanes], 0 in the lanes beyond `columns`. Strides and offsets
/// count elements.
struct PackedLines {
  const void* from;
  int64_t column_stride;
  int64_t place_stride;
  const int64_t* from_offset;  ///< [lines]
  int64_t lines;
  int64_t width;
  int64_t columns;
  int64_t lanes;
  void* to;
  const int64_t* to_offset;  ///< [lines]
};

/// Lines to be copied, and converted, for each of `outer` channels.
struct CopiedLines {
  const void* from;
  int64_t outer;
  int64_t from_outer;
  const int64_t* from_offset;  ///< [lines]
  int64_t lines;
  int64_t width;
  int64_t from_stride;
  void* to;
  int64_t to_outer;
  const int64_t* to_offset;  ///< [lines]
};

/// The types that products are made in: float64 for float64, float32 for all else.
constexpr int kRealTypes = 2;

/// One instruction set's kernels, by element type where one array has one.
struct Kernels {
  void (*class_moments[kElementTypes])(const MomentsTile& tile);
  /// Returns the first row with a bad label, or kAllLabelsGood. Not for float64.
  int64_t (*class_moments_in_order[kElementTypes])(const MomentsSpan& span);
  /// Returns the first row with a bad label, or kAllLabelsGood. Never writes for a bad label.
  int64_t (*class_logits[kElementTypes])(const LogitsTile& tile);
  void (*parameter_norms)(const NormsTile& tile);
  void (*channel_moments)(const ChannelsTile& tile);
  void (*norm_rows)(const NormRowsTile& tile);
  /// Bytes of one of its vectors.
  int64_t vector_bytes;
  void (*class_products[kRealTypes])(const ProductsChunk& chunk);
  /// Every column has its own S, which lies in panels as the vector operand does: offsets in S and `step` count the
  /// rows of a panel.
  void (*depthwise_products[kRealTypes])(const ProductsChunk& chunk);
  void (*row_dots[kRealTypes])(const DotsBlock& block);
  void (*pack_lines[kElementTypes])(const PackedLines& job);
  void (*copy_lines[kElementTypes])(const CopiedLines& job);
};

extern const Kernels kBaselineKernels;
#if defined(IMBDYN_X86_KERNELS)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

}  // namespace imbdyn
