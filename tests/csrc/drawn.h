// Inputs for the kernels that are the same to the bit on every machine: they are made of integers, by a linear
// congruential generator.
#pragma once

#include <type_traits>
#include <vector>

#include "common/elements.h"

namespace imbdyn {
namespace {

template <class T>
constexpr ElementType kType = std::is_same_v<T, double>     ? ElementType::float64
                              : std::is_same_v<T, float>    ? ElementType::float32
                              : std::is_same_v<T, Bfloat16> ? ElementType::bfloat16
                                                            : ElementType::float16;

constexpr int64_t kIgnored = -100;

/// Numbers in [-4, 4), exact in their type.
class Random {
 public:
  uint64_t bits() { return state_ = state_ * 6364136223846793005u + 1442695040888963407u; }

  void draw(double& to) { to = static_cast<double>(static_cast<int64_t>(bits()) >> 10) * 0x1p-51; }
  void draw(float& to) { to = static_cast<float>(static_cast<int64_t>(bits()) >> 39) * 0x1p-22f; }
  void draw(Bfloat16& to) {
    float value;
    draw(value);
    to.bits = static_cast<uint16_t>(bits_of_float(value) >> 16);
  }
  void draw(Float16& to) {
    const uint64_t drawn = bits() >> 40;
    const uint64_t exponent = 12 + (drawn >> 16) % 5;
    to.bits = static_cast<uint16_t>((drawn & 0x83ff) | exponent << 10);
  }

  template <class T>
  std::vector<T> array(int64_t count) {
    std::vector<T> values(static_cast<size_t>(count));
    for (T& value : values) draw(value);
    return values;
  }

 private:
  uint64_t state_ = 20240917;
};

/// A matrix with a gap between its rows or, transposed, its columns. Memory ends with its last element.
template <class T>
struct Drawn {
  std::vector<T> data;
  Matrix matrix;

  Drawn(Random& random, int64_t rows, int64_t columns, bool transposed)
      : data(random.array<T>(transposed ? columns * (rows + 1) - 1 : rows * (columns + 1) - 1)),
        matrix{data.data(), kType<T>, rows, columns, transposed ? 1 : columns + 1, transposed ? rows + 1 : 1} {}
};

/// Every fifth row is ignored; class C / 2 is absent.
struct DrawnLabels {
  std::vector<int64_t> data;
  int64_t num_classes;

  DrawnLabels(Random& random, int64_t rows, int64_t classes) : num_classes(classes) {
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t drawn = static_cast<int64_t>((random.bits() >> 33) % static_cast<uint64_t>(classes - 1));
      data.push_back(i % 5 == 0 ? kIgnored : drawn < classes / 2 ? drawn : drawn + 1);
    }
  }
  size_t size() const { return static_cast<size_t>(num_classes); }
  Labels labels() const { return {data.data(), 1, num_classes, kIgnored}; }
};

}  // namespace
}  // namespace imbdyn
