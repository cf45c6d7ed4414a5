// Inputs that are the same every time, what a kernel leaves behind, and how two of those are compared. Torch-free.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <type_traits>
#include <vector>

#include "src/tensors/executor/executor.h"
#include "src/tensors/kernels/bf16.h"

namespace coppice {

inline const std::vector<executor::Schedule> kSchedules = {
    {executor::Order::in_turn},         {executor::Order::in_turn_backwards}, {executor::Order::eager},
    {executor::Order::eager_backwards}, {executor::Order::random, 1},         {executor::Order::random, 2}};

/// Numbers in [-1, 1) that differ, the same every time.
inline float number(int64_t i, uint32_t stream) {
  uint64_t z = static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15 + stream * 0xd1b54a32d192ed03 + 1;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z ^= z >> 29;
  return static_cast<float>(static_cast<int32_t>(z >> 32)) * 0x1p-31f;
}

/// value_of(0), value_of(1), ...
template <class T>
std::vector<T> values_of(int64_t count, const std::function<T(int64_t)>& value_of) {
  std::vector<T> values;
  values.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) values.push_back(value_of(i));
  return values;
}

template <class T>
std::vector<T> numbers(int64_t count, uint32_t stream, float scale = 1.0f) {
  std::vector<T> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    if constexpr (std::is_same_v<T, Bf16>)
      values[static_cast<size_t>(i)] = to_bf16(scale * number(i, stream));
    else
      values[static_cast<size_t>(i)] = scale * number(i, stream);
  }
  return values;
}

/// What a kernel leaves, as floats of any of its outputs one after the other.
using Outputs = std::vector<float>;

template <class T>
void append(Outputs& outputs, const std::vector<T>& values) {
  for (const T value : values) outputs.push_back(to_float(value));
}

inline bool same_bits(const Outputs& a, const Outputs& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Largest |a - b| / (1 + |b|); infinite where one is NaN.
inline double error_of(const Outputs& a, const std::vector<double>& b) {
  double largest = a.size() == b.size() ? 0.0 : std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    const double error = std::fabs(a[i] - b[i]) / (1.0 + std::fabs(b[i]));
    if (!(error <= largest)) largest = std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
  }
  return largest;
}

}  // namespace coppice
