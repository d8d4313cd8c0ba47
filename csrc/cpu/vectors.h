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

/// Lanes of a vector.
template <class T>
constexpr int kVectorLanes = static_cast<int>(kVectorBytes / sizeof(T));

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

/// In parts of 16 bytes, whose lanes are added last.
template <class T>
inline T sum_of_lanes(Vector<T> vector) {
  typedef T Part __attribute__((vector_size(16), aligned(sizeof(T)), may_alias));
  constexpr int kPartLanes = static_cast<int>(16 / sizeof(T));
  T lanes[kVectorLanes<T>];
  store<T>(vector, lanes);
  Part sum = *reinterpret_cast<const Part*>(lanes);
  for (int i = kPartLanes; i < kVectorLanes<T>; i += kPartLanes) sum += *reinterpret_cast<const Part*>(lanes + i);
  T total = sum[0];
  for (int i = 1; i < kPartLanes; ++i) total += sum[i];
  return total;
}

#else

/// The same for compilers without vector types: loops over lanes, which they may vectorise.
template <class T>
struct Vector {
  T lane[kVectorLanes<T>];

  Vector& operator+=(const Vector& other) {
    for (int i = 0; i < kVectorLanes<T>; ++i) lane[i] += other.lane[i];
    return *this;
  }
  friend Vector operator-(Vector a, T b) {
    for (int i = 0; i < kVectorLanes<T>; ++i) a.lane[i] -= b;
    return a;
  }
  friend Vector operator*(Vector a, const Vector& b) {
    for (int i = 0; i < kVectorLanes<T>; ++i) a.lane[i] *= b.lane[i];
    return a;
  }
  friend Vector operator*(Vector a, T b) {
    for (int i = 0; i < kVectorLanes<T>; ++i) a.lane[i] *= b;
    return a;
  }
};

template <class T>
inline Vector<T> load(const T* from) {
  Vector<T> vector;
  for (int i = 0; i < kVectorLanes<T>; ++i) vector.lane[i] = from[i];
  return vector;
}

template <class T>
inline void store(const Vector<T>& vector, T* to) {
  for (int i = 0; i < kVectorLanes<T>; ++i) to[i] = vector.lane[i];
}

template <class T>
inline T sum_of_lanes(const Vector<T>& vector) {
  T total = 0;
  for (T lane : vector.lane) total += lane;
  return total;
}

#endif

}  // namespace
}  // namespace imbdyn
