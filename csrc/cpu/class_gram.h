// Inner products between the class gradients of one layer, and the squared norms of its samples' gradients.
#pragma once

#include "common/arrays.h"

namespace imbdyn {

/// How the class gradients of a matrix product are multiplied; all are exact.
enum class GramWay : int {
  cheapest = 0,
  gram = 1,    ///< pairs of rows; nothing of the size of the weight is made
  direct = 2,  ///< class gradients; norms of samples from the pairs of rows within each
  sample = 3,  ///< class gradients from the samples', which are squared as they are made
};

/// Where results go: zero-filled by the caller; only what belongs to classes that are present is written.
struct GramOut {
  double* gram;            ///< [C, C]; null: not wanted
  double* sample_norm_sq;  ///< [C]; null: not wanted
};

/// The sample of each row; null data: every row is a sample.
struct Samples {
  const int64_t* data;
  int64_t stride;
};

/// Of a layer's weight, grad_outputs^T inputs (always wanted), and of its bias, the sum of grad_outputs. Both matrices
/// have one element type. Returns kAllLabelsGood, or the first row whose label is bad (then nothing is written).
int64_t class_gram_rows(const Matrix& inputs, const Matrix& grad_outputs, const Labels& labels, const Samples& samples,
                        GramWay way, const GramOut& weight, const GramOut& bias, int threads);

constexpr int kMostDimensions = 3;

/// Samples of channels of up to three dimensions (the leading ones of size 1 where there are fewer), only read.
struct Images {
  const void* data;
  ElementType type;
  int64_t samples;
  int64_t channels;
  int64_t size[kMostDimensions];
  int64_t sample_stride;
  int64_t channel_stride;
  int64_t stride[kMostDimensions];
};

/// Of a convolution, by dimension; what lies outside of the input is 0.
struct Convolution {
  int64_t kernel[kMostDimensions];
  int64_t stride[kMostDimensions];
  int64_t padding[kMostDimensions];  ///< before the input
  int64_t dilation[kMostDimensions];
  int64_t groups;
};

/// Of a convolution's weight; the labels are the images'. Otherwise as class_gram_rows.
int64_t class_gram_convolution(const Images& inputs, const Images& grad_outputs, const Labels& labels,
                               const Convolution& convolution, const GramOut& weight, int threads);

}  // namespace imbdyn
