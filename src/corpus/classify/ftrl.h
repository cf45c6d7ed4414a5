// FTRL-proximal for logistic regression (McMahan et al. 2013, "Ad click prediction: a view from the trenches"): a rate
// of its own for each weight. For a gradient g of weight i:
//   sigma = (sqrt(n + g^2) - sqrt(n)) / alpha;  z += g - sigma w;  n += g^2
//   w = 0 where |z| <= l1, else -(z - sign(z) l1) / ((beta + sqrt(n)) / alpha + l2)
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace coppice {

struct FtrlOptions {
  float alpha = 1, beta = 1, l1 = 0, l2 = 0;
};

class FtrlProximal {
 public:
  FtrlProximal(uint64_t size, const FtrlOptions& options);
  void step(uint64_t i, float gradient);
  std::span<const float> weights() const { return weights_; }

 private:
  FtrlOptions options_;
  std::vector<float> z_, n_, weights_;
};

}  // namespace coppice
