// What tests/csrc/test_sanitizers.py builds with the sanitizers and runs. Without a word: every family of kernels from
// several threads at once, on the pool, for no OpenMP runtime is loaded here; all callers must get the same bits. With
// a word: one mistake, inside a kernel, that a sanitizer must report.
#include <atomic>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "common/thread_pool.h"
#include "cpu/dispatch.h"
#include "families.h"

namespace {

using namespace imbdyn;

/// Returns when two threads of the pool are at work at the same time: neither task ends before the other has begun.
void meet_in_the_pool() {
  std::atomic<int> arrived{0};
  parallel_for(2, 2, [&](int64_t, int) {
    arrived.fetch_add(1);
    while (arrived.load() < 2) std::this_thread::yield();
  });
}

bool same_bits(const Results& a, const Results& b) {
  if (a.arrays.size() != b.arrays.size()) return false;
  for (size_t i = 0; i < a.arrays.size(); ++i) {
    const std::vector<double>&x = a.arrays[i].values, &y = b.arrays[i].values;
    if (x.size() != y.size() || std::memcmp(x.data(), y.data(), x.size() * sizeof(double)) != 0) {
      std::fprintf(stderr, "callers disagree on %s\n", a.arrays[i].name.c_str());
      return false;
    }
  }
  return true;
}

template <class Body>
void in_threads(size_t count, Body&& body) {
  std::vector<std::thread> threads;
  for (size_t i = 0; i < count; ++i) threads.emplace_back([&body, i] { body(i); });
  for (std::thread& thread : threads) thread.join();
}

int at_once() {
  meet_in_the_pool();
  std::vector<Results> results(3);
  in_threads(results.size(), [&](size_t i) { results[i] = all_types(); });
  for (const Results& other : results) {
    if (!same_bits(results[0], other)) return 1;
  }
  std::printf("%s: %zu callers made the same %zu arrays\n", active_isa().c_str(), results.size(),
              results[0].arrays.size());
  return 0;
}

int mistake(const std::string& which) {
  constexpr int64_t kRows = 20, kColumns = 9, kClasses = 2;
  const std::vector<float> features(kRows * kColumns + 1);
  std::vector<int64_t> labels(kRows), count(kClasses);
  labels[kRows - 1] = kClasses - 1;
  const bool is_short = which == "short-result";
  std::vector<float> mean(kClasses * kColumns - (is_short ? 1 : 0)), m2(kClasses * kColumns);
  const char* const data = reinterpret_cast<const char*>(features.data()) + (which == "misaligned-features" ? 2 : 0);
  const auto call = [&](size_t) {
    class_moments({data, ElementType::float32, kRows, kColumns, kColumns, 1}, {labels.data(), 1, kClasses, kIgnored},
                  {count.data(), mean.data(), m2.data()}, 1);
  };
  in_threads(which == "shared-result" ? 2 : 1, call);
  std::printf("nobody noticed: %s\n", which.c_str());
  return 0;
}

}  // namespace

int main(int count, char** words) { return count == 1 ? at_once() : mistake(words[1]); }
