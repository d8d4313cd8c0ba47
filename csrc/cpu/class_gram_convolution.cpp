#include <algorithm>
#include <memory>
#include <vector>

#include "cpu/class_gram.h"
#include "cpu/class_products.h"
#include "cpu/dispatch.h"
#include "cpu/gram_result.h"
#include "cpu/kernels.h"

namespace imbdyn {
namespace {

// Places of one chunk, if a line is not longer: their panels stay in the second-level cache.
constexpr int64_t kChunkPlaces = 512;

constexpr int kX = kMostDimensions - 1;

int64_t bytes_of(ElementType type) { return type == ElementType::float64 ? 8 : type == ElementType::float32 ? 4 : 2; }

/// The lines (z, y) of an image, in order: what one element at their start is away from the first.
std::vector<int64_t> line_offsets(int64_t depth, int64_t height, int64_t z_stride, int64_t y_stride,
                                  int64_t first = 0) {
  std::vector<int64_t> offsets;
  offsets.reserve(static_cast<size_t>(depth * height));
  for (int64_t z = 0; z < depth; ++z) {
    for (int64_t y = 0; y < height; ++y) offsets.push_back(first + z * z_stride + y * y_stride);
  }
  return offsets;
}

/// Images as places: the output gradients are V; S is the input, zero-padded, with an offset for each tap and channel.
template <class T>
class ImagePlaces final : public PlaceSource<T> {
 public:
  ImagePlaces(const Images& inputs, const Images& grads, const Convolution& convolution, const int64_t* order)
      : inputs_(inputs), grads_(grads), order_(order), depthwise_(is_depthwise(inputs, grads, convolution)) {
    const Convolution& c = convolution;
    in_group_ = inputs.channels / c.groups;
    out_group_ = grads.channels / c.groups;
    bool inside = true;
    for (int d = 0; d < kMostDimensions; ++d) {
      used_[d] = (grads.size[d] - 1) * c.stride[d] + (c.kernel[d] - 1) * c.dilation[d] + 1;
      inside = inside && c.padding[d] <= 0 && used_[d] - c.padding[d] <= inputs.size[d];
      // What of the input falls into the padded one, which begins at -padding.
      first_[d] = std::max<int64_t>(0, -c.padding[d]);
      at_[d] = first_[d] + c.padding[d];
      copied_[d] = std::max<int64_t>(0, std::min(inputs.size[d] - first_[d], used_[d] - at_[d]));
    }
    pixel_major_ = depthwise_ || (inputs.channel_stride == 1 && inputs.channels > 1);
    in_place_ =
        inside && !pixel_major_ && inputs.type == (sizeof(T) == 8 ? ElementType::float64 : ElementType::float32);

    // Strides of S: of the input itself, of planes by channel, or of all channels by pixel.
    const int64_t line = 64 / static_cast<int64_t>(sizeof(T));
    if (in_place_) {
      std::copy(inputs.stride, inputs.stride + kMostDimensions, stride_);
      channel_stride_ = inputs.channel_stride;
    } else {
      stride_[kX] = depthwise_ ? 1 : pixel_major_ ? ((inputs.channels + line - 1) / line | 1) * line : 1;
      stride_[1] = used_[2] * stride_[kX];
      stride_[0] = used_[1] * stride_[1];
      channel_stride_ = pixel_major_ ? 1 : used_[0] * stride_[0];
    }
    for (int64_t z = 0; z < c.kernel[0]; ++z) {
      for (int64_t y = 0; y < c.kernel[1]; ++y) {
        for (int64_t x = 0; x < c.kernel[2]; ++x) {
          const int64_t tap =
              z * c.dilation[0] * stride_[0] + y * c.dilation[1] * stride_[1] + x * c.dilation[2] * stride_[2];
          for (int64_t i = 0; i < in_group_; ++i) row_offset_.push_back(tap + i * channel_stride_);
        }
      }
    }

    // Lines of places; neighbours that follow each other everywhere are one.
    const int64_t z = grads.size[0], y = grads.size[1];
    const int64_t scalar_y = c.stride[1] * stride_[1], scalar_z = c.stride[0] * stride_[0];
    step_ = c.stride[kX] * stride_[kX];
    width_ = grads.size[kX];
    scalar_line_ = line_offsets(z, y, scalar_z, scalar_y);
    vector_line_ = line_offsets(z, y, grads.stride[0], grads.stride[1]);
    scalar_joined_ = (y == 1 || scalar_y == width_ * step_) && (z == 1 || scalar_z == y * width_ * step_);
    vector_joined_ = (y == 1 || grads.stride[1] == width_ * grads.stride[kX]) &&
                     (z == 1 || grads.stride[0] == y * width_ * grads.stride[kX]);
    chunk_lines_ = std::min<int64_t>(std::max<int64_t>(1, kChunkPlaces / std::max<int64_t>(1, width_)), z * y);
    for (int64_t l = 0; l < chunk_lines_; ++l) {
      for (int half = 0; half < 2; ++half) packed_line_[half].push_back(l * width_ * (lanes() >> half));
    }

    const int64_t* const from = inputs.stride;
    first_copied_ = first_[0] * from[0] + first_[1] * from[1] + first_[kX] * from[kX];
    copied_from_ = line_offsets(copied_[0], copied_[1], from[0], from[1]);
    for (int half = 0; half < 2; ++half) {
      const int64_t scale = depthwise_ ? lanes() >> half : 1;
      copied_to_[half] = line_offsets(copied_[0], copied_[1], stride_[0] * scale, stride_[1] * scale,
                                      (at_[0] * stride_[0] + at_[1] * stride_[1] + at_[kX] * stride_[kX]) * scale);
    }
  }

  /// One input and one output channel in each group: then channels lie side by side in panels of both.
  static bool is_depthwise(const Images& inputs, const Images& grads, const Convolution& convolution) {
    return convolution.groups > 1 && inputs.channels == convolution.groups && grads.channels == convolution.groups;
  }

  ProductShape shape() const {
    const int64_t rows = static_cast<int64_t>(row_offset_.size());
    return depthwise_ ? ProductShape{1, rows, grads_.channels, true}
                      : ProductShape{grads_.channels / out_group_, rows, out_group_, false};
  }

  const int64_t* row_offset() const override { return row_offset_.data(); }
  int64_t most_places() const override { return chunk_lines_ * width_; }
  int64_t least_columns() const override {
    // A number of S serves as many multiply-adds as there are columns and taps.
    return depthwise_ ? 1 : std::max<int64_t>(1, 128 * in_group_ / static_cast<int64_t>(row_offset_.size()));
  }
  int64_t chunks(int64_t) const override {
    return (static_cast<int64_t>(scalar_line_.size()) + chunk_lines_ - 1) / chunk_lines_;
  }

  int64_t place_scalars(ProductBlock* blocks, const int64_t* first_column, int64_t num_blocks) const override {
    const int64_t pixels = used_[0] * used_[1] * used_[2];
    if (!depthwise_) {
      for (int64_t b = 0; b < num_blocks; ++b) {
        blocks[b].scalars = first_column[b] / out_group_ * in_group_ * channel_stride_;
      }
      return in_place_ ? 0 : pixel_major_ ? pixels * stride_[kX] : pixels * inputs_.channels;
    }
    int64_t size = 0;
    for (int64_t b = 0; b < num_blocks; ++b) {
      blocks[b].scalars = size;
      size += pixels * blocks[b].lanes;
    }
    return size;
  }

  void pack(int64_t unit, int64_t index, const int64_t* first_column, T* scalars, T* panels,
            ProductsChunk& chunk) const override {
    const int64_t sample = order_[unit];
    const char* const input =
        static_cast<const char*>(inputs_.data) + sample * inputs_.sample_stride * bytes_of(inputs_.type);
    if (index == 0 && !in_place_) pack_input(input, first_column, scalars, chunk);
    chunk.scalars = in_place_ ? static_cast<const void*>(input) : scalars;

    const int64_t first = index * chunk_lines_;
    const int64_t lines = std::min(chunk_lines_, static_cast<int64_t>(scalar_line_.size()) - first);
    const char* const grad = static_cast<const char*>(grads_.data);
    for (int64_t b = 0; b < chunk.num_blocks; ++b) {
      const ProductBlock& block = chunk.blocks[b];
      const int64_t start = sample * grads_.sample_stride + first_column[b] * grads_.channel_stride;
      kernels().pack_lines[static_cast<int>(grads_.type)](
          {grad + start * bytes_of(grads_.type), grads_.channel_stride, grads_.stride[kX], vector_line_.data() + first,
           vector_joined_ ? 1 : lines, vector_joined_ ? lines * width_ : width_, block.width, block.lanes,
           panels + block.panel, packed_line_[block.lanes == lanes() ? 0 : 1].data()});
    }
    chunk.line_offset = scalar_line_.data() + first;
    chunk.lines = scalar_joined_ ? 1 : lines;
    chunk.width = scalar_joined_ ? lines * width_ : width_;
    chunk.step = step_;
  }

 private:
  static int64_t lanes() { return 2 * kernels().vector_bytes / static_cast<int64_t>(sizeof(T)); }

  /// Copies an image into the padded one, whose border stays 0.
  void pack_input(const char* input, const int64_t* first_column, T* scalars, const ProductsChunk& chunk) const {
    const int type = static_cast<int>(inputs_.type);
    const int64_t bytes = bytes_of(inputs_.type);
    const int64_t lines = static_cast<int64_t>(copied_from_.size());
    const char* const from = input + first_copied_ * bytes;
    if (depthwise_) {
      for (int64_t b = 0; b < chunk.num_blocks; ++b) {
        const ProductBlock& block = chunk.blocks[b];
        kernels().pack_lines[type]({from + first_column[b] * inputs_.channel_stride * bytes, inputs_.channel_stride,
                                    inputs_.stride[kX], copied_from_.data(), lines, copied_[kX], block.width,
                                    block.lanes, scalars + block.scalars,
                                    copied_to_[block.lanes == lanes() ? 0 : 1].data()});
      }
    } else if (pixel_major_) {
      kernels().copy_lines[type]({from, copied_[kX], inputs_.stride[kX], copied_from_.data(), lines, inputs_.channels,
                                  1, scalars, stride_[kX], copied_to_[0].data()});
    } else {
      kernels().copy_lines[type]({from, inputs_.channels, inputs_.channel_stride, copied_from_.data(), lines,
                                  copied_[kX], inputs_.stride[kX], scalars, channel_stride_, copied_to_[0].data()});
    }
  }

  Images inputs_;
  Images grads_;
  const int64_t* order_;
  bool depthwise_;
  bool pixel_major_;  // channels of a pixel are neighbours in S
  bool in_place_;
  int64_t in_group_, out_group_;
  int64_t used_[kMostDimensions];    // size of the padded input that the output reaches
  int64_t first_[kMostDimensions];   // of the input: where what is copied begins,
  int64_t at_[kMostDimensions];      // where it goes in the padded one,
  int64_t copied_[kMostDimensions];  // and how much it is
  int64_t stride_[kMostDimensions];  // of S
  int64_t channel_stride_;
  int64_t step_, width_, chunk_lines_, first_copied_;
  bool scalar_joined_, vector_joined_;
  std::vector<int64_t> row_offset_, scalar_line_, vector_line_, packed_line_[2], copied_from_, copied_to_[2];
};

template <class T>
void add_products(const Images& inputs, const Images& grads, const Convolution& convolution, const SortedRows& sorted,
                  double* gram, double* norms, int threads) {
  const ImagePlaces<T> source(inputs, grads, convolution, sorted.order.get());
  std::vector<ProductUnit> units;
  const int64_t places = grads.size[0] * grads.size[1] * grads.size[2];
  int64_t index = 0;
  for (const SortedRows::Class& c : sorted.present) {
    units.insert(units.end(), static_cast<size_t>(c.count), {index++, places});
  }
  std::vector<double> squares(norms == nullptr ? 0 : units.size());
  add_class_products<T>(source, source.shape(), units, static_cast<int64_t>(sorted.present.size()),
                        {gram, norms == nullptr ? nullptr : squares.data()}, {nullptr, nullptr}, threads);
  for (size_t u = 0; u < squares.size(); ++u) norms[units[u].class_index] += squares[u];
}

}  // namespace

int64_t class_gram_convolution(const Images& inputs, const Images& grad_outputs, const Labels& labels,
                               const Convolution& convolution, const GramOut& weight, int threads) {
  SortedRows sorted;
  std::unique_ptr<int64_t[]> count(new int64_t[static_cast<size_t>(labels.num_classes)]());
  const int64_t bad_row = sort_rows(labels, inputs.samples, count.get(), sorted);
  if (bad_row != kAllLabelsGood || sorted.present.empty()) return bad_row;
  GramResult result(sorted, labels.num_classes, weight);
  if (inputs.channels > 0 && grad_outputs.channels > 0) {
    const auto products = inputs.type == ElementType::float64 ? add_products<double> : add_products<float>;
    products(inputs, grad_outputs, convolution, sorted, result.gram(), result.norms(), threads);
  }
  result.store();
  return kAllLabelsGood;
}

}  // namespace imbdyn
