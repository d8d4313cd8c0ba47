// Every family of kernels in each element type on 1 and 3 threads, with inputs that are the same everywhere.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "cpu/class_gram.h"
#include "cpu/class_logits.h"
#include "cpu/class_moments.h"
#include "cpu/norm_gradients.h"
#include "cpu/parameter_norms.h"
#include "drawn.h"

namespace imbdyn {
namespace {

/// Arrays by name, in the order in which they were made.
struct Results {
  struct Array {
    std::string name;
    std::vector<double> values;
  };
  std::vector<Array> arrays;

  template <class T>
  void add(const std::string& name, const T* values, size_t count) {
    arrays.push_back({name, std::vector<double>(values, values + count)});
  }
  template <class T>
  void add(const std::string& name, const std::vector<T>& values) {
    add(name, values.data(), values.size());
  }
};

inline void require_good(int64_t bad_row) {
  if (bad_row == kAllLabelsGood) return;
  std::fprintf(stderr, "row %lld was called bad\n", static_cast<long long>(bad_row));
  std::exit(1);
}

template <class T>
void moments(Results& to, const std::string& at, const Matrix& features, const Labels& labels, int threads) {
  std::vector<int64_t> count(static_cast<size_t>(labels.num_classes));
  std::vector<Real<T>> mean(count.size() * static_cast<size_t>(features.columns)), m2(mean.size());
  require_good(class_moments(features, labels, {count.data(), mean.data(), m2.data()}, threads));
  to.add(at + "/count", count);
  to.add(at + "/mean", mean);
  to.add(at + "/m2", m2);
}

template <class T>
void all_moments(Results& to, const std::string& at, int threads) {
  // By class: rows in chunks of 256 and four; transposed; 1 to 4 rows a class and two panels; segments of 8192 rows.
  // The last in order, in spans of 1050 rows.
  const int64_t cases[][4] = {
      {1031, 257, 7, 0}, {300, 65, 7, 1}, {20, 2053, 11, 0}, {17001, 5, 2, 1}, {4201, 37, 2, 0}};
  Random random;
  for (const auto& c : cases) {
    const Drawn<T> features(random, c[0], c[1], c[3] != 0);
    const DrawnLabels labels(random, c[0], c[2]);
    moments<T>(to, at + "/class_moments/" + std::to_string(c[0]), features.matrix, labels.labels(), threads);
  }
  if (kType<T> != ElementType::float16) return;
  // Every 31st half, subnormals, infinities and NaN among them, as one row, which is its own mean.
  std::vector<Float16> halves(2115);
  for (size_t i = 0; i < halves.size(); ++i) halves[i].bits = static_cast<uint16_t>(31 * i);
  const int64_t label = 0;
  const Matrix row{halves.data(), ElementType::float16, 1, 2115, 2115, 1};
  moments<Float16>(to, at + "/class_moments/halves", row, {&label, 1, 1, kIgnored}, threads);
}

template <class T>
void all_logits(Results& to, const std::string& at, int threads) {
  static const char* const kNames[] = {"count",      "loss",      "correct",  "margin",
                                       "confidence", "predicted", "positive", "negative"};
  // Few classes, many, and both with rows that are read across; the last are more than are read so.
  const int64_t cases[][3] = {{4501, 11, 0}, {513, 131, 0}, {301, 11, 1}, {302, 131, 1}, {130, 1031, 1}};
  Random random;
  for (const auto& c : cases) {
    const std::string name = at + "/class_logits/" + std::to_string(c[0]) + "/";
    const Drawn<T> logits(random, c[0], c[1], c[2] != 0);
    DrawnLabels labels(random, c[0], c[1]);
    std::vector<double> sums(static_cast<size_t>(kLogitSums * c[1]));
    require_good(class_logits(logits.matrix, labels.labels(), sums.data(), threads));
    for (int k = 0; k < kLogitSums; ++k) to.add(name + kNames[k], sums.data() + k * c[1], static_cast<size_t>(c[1]));
    labels.data[13] = labels.data[101] = c[1];
    const int64_t bad_row = class_logits(logits.matrix, labels.labels(), sums.data(), threads);
    to.add(name + "bad_row", &bad_row, 1);
  }
}

/// Results of one parameter, added when they go.
struct Gram {
  Results& to;
  std::string name;
  std::vector<double> gram, norms;

  Gram(Results& results, const std::string& at, size_t classes)
      : to(results), name(at), gram(classes * classes), norms(classes) {}
  ~Gram() {
    to.add(name + "/gram", gram);
    to.add(name + "/norms", norms);
  }
  GramOut out() { return {gram.data(), norms.data()}; }
};

template <class T>
void all_gram_rows(Results& to, const std::string& at, int threads) {
  static const char* const kWays[] = {"cheapest", "gram", "direct", "sample"};
  // Inputs fill the panels worse than output gradients, and the other way round; every row a sample, and three rows.
  const int64_t cases[][6] = {{701, 37, 29, 3, 0, 1}, {260, 130, 67, 7, 1, 3}, {261, 32, 37, 7, 0, 3}};
  Random random;
  for (const auto& c : cases) {
    const Drawn<T> inputs(random, c[0], c[1], c[4] != 0), grads(random, c[0], c[2], c[4] != 0);
    const DrawnLabels labels(random, c[0], c[3]);
    std::vector<int64_t> samples;
    for (int64_t i = 0; i < c[0]; ++i) samples.push_back(i / c[5]);
    for (const GramWay way : {GramWay::gram, GramWay::direct, GramWay::sample}) {
      const std::string name = at + "/class_gram_" + kWays[static_cast<int>(way)] + "/" + std::to_string(c[0]);
      Gram weight(to, name + "/weight", labels.size()), bias(to, name + "/bias", labels.size());
      require_good(class_gram_rows(inputs.matrix, grads.matrix, labels.labels(),
                                   {c[5] == 1 ? nullptr : samples.data(), 1}, way, weight.out(), bias.out(), threads));
    }
  }
}

template <class T>
void all_gram_convolution(Results& to, const std::string& at, int threads) {
  struct Case {
    const char* name;
    int64_t channels[2];
    int64_t size[2][3];  // of the input and of the output
    Convolution convolution;
    bool channels_last;
  };
  const Case cases[] = {
      {"plain", {5, 7}, {{1, 9, 11}, {1, 9, 11}}, {{1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, 1}, false},
      {"one_by_one", {19, 35}, {{1, 9, 11}, {1, 9, 11}}, {{1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}, 1}, false},
      {"strided", {6, 19}, {{1, 13, 19}, {1, 6, 8}}, {{1, 3, 5}, {1, 2, 2}, {0, 0, 0}, {1, 1, 1}, 1}, false},
      {"grouped", {6, 10}, {{1, 13, 19}, {1, 13, 21}}, {{1, 3, 2}, {1, 1, 1}, {0, 2, 2}, {1, 2, 2}, 2}, false},
      {"depthwise", {37, 37}, {{1, 10, 17}, {1, 5, 9}}, {{1, 3, 3}, {1, 2, 2}, {0, 1, 1}, {1, 1, 1}, 37}, false},
      {"last", {5, 19}, {{1, 9, 11}, {1, 9, 11}}, {{1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, 1}, true},
      {"grouped_last", {6, 10}, {{1, 13, 9}, {1, 7, 5}}, {{1, 3, 3}, {1, 2, 2}, {0, 1, 1}, {1, 1, 1}, 2}, true},
      {"depthwise_last", {37, 37}, {{1, 10, 17}, {1, 10, 17}}, {{1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}, 37}, true},
      {"volumes", {3, 5}, {{4, 6, 7}, {5, 6, 7}}, {{2, 3, 3}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, 1}, false},
  };
  constexpr int64_t kSamples = 47;
  Random random;
  for (const Case& c : cases) {
    std::vector<T> data[2];
    Images images[2];
    for (int k = 0; k < 2; ++k) {
      const int64_t channels = c.channels[k], pixels = c.size[k][0] * c.size[k][1] * c.size[k][2];
      data[k] = random.array<T>(kSamples * channels * pixels);
      const int64_t channel_stride = c.channels_last ? 1 : pixels;
      images[k] = {data[k].data(), kType<T>, kSamples, channels, {}, channels * pixels, channel_stride, {}};
      int64_t stride = c.channels_last ? channels : 1;
      for (int d = kMostDimensions - 1; d >= 0; --d) {
        images[k].size[d] = c.size[k][d];
        images[k].stride[d] = stride;
        stride *= c.size[k][d];
      }
    }
    const DrawnLabels labels(random, kSamples, 7);
    Gram weight(to, at + "/class_gram_convolution/" + c.name, labels.size());
    require_good(class_gram_convolution(images[0], images[1], labels.labels(), c.convolution, weight.out(), threads));
  }
}

template <class T>
void all_parameter_norms(Results& to, const std::string& at, int threads) {
  constexpr int64_t kCount = 100003, kRows = 7;
  Random random;
  const std::vector<T> weight = random.array<T>(kCount), grad = random.array<T>(kCount),
                       previous = random.array<T>(kCount);
  const std::vector<float> single = random.array<float>(kCount);
  const FlatArray w{weight.data(), kType<T>, true}, g{grad.data(), kType<T>, true}, p{previous.data(), kType<T>, true};
  const FlatArray mixed{single.data(), ElementType::float32, true}, none{nullptr, ElementType::float64, false};
  const std::vector<Parameter> parameters{
      {w, g, p, kCount}, {w, mixed, p, kRows * 33}, {w, none, none, 1}, {w, g, none, 1023}, {w, none, mixed, 0}};
  std::vector<double> out(4 * parameters.size()), rows(4 * kRows);
  parameter_norms(parameters, {1, kRows, rows.data()}, out.data(), threads);
  to.add(at + "/parameter_norms/tensors", out);
  to.add(at + "/parameter_norms/rows", rows);
}

template <class T>
void all_norm_gradients(Results& to, const std::string& at, int threads) {
  enum Kind { kSelf, kGiven, kCentredRows, kPlainRows };
  struct Case {
    const char* name;
    Kind kind;
    int64_t units, rows, columns, groups;
    bool across_units, transposed;
  };
  const Case cases[] = {
      {"norm_gradients/groups", kSelf, 17, 70, 131, 7, false, false},
      {"norm_gradients/short_rows", kSelf, 41, 71, 35, 71, true, false},
      {"norm_gradients/long_rows", kSelf, 2, 6, 2053, 1, false, false},
      {"norm_gradients/channels_last", kSelf, 5, 259, 67, 259, true, true},
      {"norm_gradients/given", kGiven, 3, 70, 35, 70, true, false},
      {"norm_gradients_rows/centred", kCentredRows, 17, 67, 131, 0, false, false},
      {"norm_gradients_rows/plain", kPlainRows, 3, 5, 1031, 0, false, false},
  };
  Random random;
  for (const Case& c : cases) {
    const int64_t rows = c.rows * (c.transposed ? 1 : c.units), columns = c.columns * (c.transposed ? c.units : 1);
    const Drawn<T> x(random, rows, columns, c.transposed), dy(random, rows, columns, c.transposed);
    const auto units_of = [&](Matrix m) -> UnitMatrices {
      m.rows = c.rows;
      m.columns = c.columns;
      return {m, c.transposed ? m.columns * m.column_stride : m.rows * m.row_stride};
    };
    const UnitMatrices xs = units_of(x.matrix), dys = units_of(dy.matrix);
    const bool by_rows = c.kind == kCentredRows || c.kind == kPlainRows;
    std::vector<Real<T>> weight(static_cast<size_t>(c.units * (by_rows ? c.columns : c.rows))), bias(weight.size());
    const NormGradients out{weight.data(), bias.data()};
    const std::vector<double> mean = random.array<double>(c.rows), variance(mean.size(), 0.75);
    const bool given = c.kind == kGiven;
    const ChannelStatistics statistics{c.groups, c.across_units, given ? mean.data() : nullptr,
                                       given ? variance.data() : nullptr, 1e-5};
    if (by_rows) {
      norm_gradients_rows(xs, dys, c.units, c.kind == kCentredRows, 1e-5, out, threads);
    } else {
      norm_gradients(xs, dys, c.units, statistics, out, threads);
    }
    to.add(at + "/" + c.name + "/weight", weight);
    to.add(at + "/" + c.name + "/bias", bias);
  }
}

template <class T>
void all_families(Results& to, const std::string& type) {
  for (const int threads : {1, 3}) {
    const std::string at = type + "/" + std::to_string(threads);
    all_moments<T>(to, at, threads);
    all_logits<T>(to, at, threads);
    all_gram_rows<T>(to, at, threads);
    all_gram_convolution<T>(to, at, threads);
    all_parameter_norms<T>(to, at, threads);
    all_norm_gradients<T>(to, at, threads);
  }
}

inline Results all_types() {
  Results to;
  all_families<double>(to, "float64");
  all_families<float>(to, "float32");
  all_families<Bfloat16>(to, "bfloat16");
  all_families<Float16>(to, "float16");
  return to;
}

}  // namespace
}  // namespace imbdyn
