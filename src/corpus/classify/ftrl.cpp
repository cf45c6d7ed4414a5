#include "src/corpus/classify/ftrl.h"

#include <cmath>

namespace coppice {

FtrlProximal::FtrlProximal(uint64_t size, const FtrlOptions& options)
    : options_(options), z_(size), n_(size), weights_(size) {}

void FtrlProximal::step(uint64_t i, float gradient) {
  const float root = std::sqrt(n_[i] + gradient * gradient);
  const float sigma = (root - std::sqrt(n_[i])) / options_.alpha;
  z_[i] += gradient - sigma * weights_[i];
  n_[i] += gradient * gradient;
  weights_[i] = std::abs(z_[i]) <= options_.l1 ? 0
                                               : -(z_[i] - std::copysign(options_.l1, z_[i])) /
                                                     ((options_.beta + root) / options_.alpha + options_.l2);
}

}  // namespace coppice
