// Vectors as wide as the instruction set's registers. Internal linkage: see common/elements.h.
#pragma once

#include <stdint.h>

namespace imbdyn {
namespace {

#if defined(__AVX512F__)
constexpr int64_t kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int64_t kVectorBytes = 32;
#else
constexpr int64_t kVectorBytes = 16;
#endif

#if defined(__GNUC__)

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
  typedef T in_memory __attribute__((vector_size(kVectorBytes), aligned(sizeof(T)), may_alias));
};
template <class T>
using Vector = typename VectorOf<T>::type;

template <class T>
inline Vector<T> load(const T* from) {
  return *reinterpret_cast<const typename VectorOf<T>::in_memory*>(from);
}

template <class T>
inline void store(Vector<T> vector, T* to) {
  *reinterpret_cast<typename VectorOf<T>::in_memory*>(to) = vector;
}

#else

/// The same for compilers without vector types: loops over lanes, which they may vectorise.
template <class T>
struct Vector {
  T lane[kVectorBytes / sizeof(T)];

  Vector& operator+=(const Vector& other) {
    for (size_t i = 0; i < kVectorBytes / sizeof(T); ++i) lane[i] += other.lane[i];
    return *this;
  }
  friend Vector operator*(Vector a, const Vector& b) {
    for (size_t i = 0; i < kVectorBytes / sizeof(T); ++i) a.lane[i] *= b.lane[i];
    return a;
  }
  friend Vector operator*(Vector a, T b) {
    for (size_t i = 0; i < kVectorBytes / sizeof(T); ++i) a.lane[i] *= b;
    return a;
  }
  T operator[](int64_t i) const { return lane[i]; }
};

template <class T>
inline Vector<T> load(const T* from) {
  Vector<T> vector;
  for (size_t i = 0; i < kVectorBytes / sizeof(T); ++i) vector.lane[i] = from[i];
  return vector;
}

template <class T>
inline void store(const Vector<T>& vector, T* to) {
  for (size_t i = 0; i < kVectorBytes / sizeof(T); ++i) to[i] = vector.lane[i];
}

#endif

/// Lanes of a vector.
template <class T>
constexpr int kVectorLanes = static_cast<int>(kVectorBytes / sizeof(T));

}  // namespace
}  // namespace imbdyn
