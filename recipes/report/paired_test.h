// Mean and spread over seeds, and whether two arms differ: Student's paired t-test, because arms of one seed share data
// order and noise.
#pragma once

#include <vector>

namespace coppice {

struct Spread {
  int n = 0;                // finite values
  double mean = 0, sd = 0;  // sd: sample standard deviation (n - 1); NaN when n < 2
};
Spread spread_of(const std::vector<double>& values);

struct PairedTest {
  int n = 0;                // pairs of which both values are finite
  double mean = 0, sd = 0;  // of the differences a - b
  double t = 0, p = 0;      // p: two-sided, of a mean difference of 0; NaN when n < 2 or the differences have no spread
};
/// a[i] and b[i] belong to one seed.
PairedTest paired_t_test(const std::vector<double>& a, const std::vector<double>& b);

/// The p of one family of tests after Holm's step-down correction (Scandinavian Journal of Statistics 6, 1979): when no
/// hypothesis of the family is false, the smallest lies below a level with at most that probability. NaN is no test: it
/// stays, and does not count.
std::vector<double> holm_corrected(const std::vector<double>& p);

/// Two-sided probability that |T| >= |t| under `degrees` >= 1 degrees of freedom (Abramowitz and Stegun 26.7.3
/// and 26.7.4, exact for whole degrees).
double t_test_p(double t, int degrees);

}  // namespace coppice
