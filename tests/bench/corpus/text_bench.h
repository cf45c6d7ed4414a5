// What the benchmarks of text steps share: documents, time of this process in turns, one JSON line a case. They know no
// torch; other load on the machine shifts processor time less than the clock's.
#pragma once

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "src/text/documents.h"

namespace coppice::bench {

inline double user_s() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec) + static_cast<double>(usage.ru_utime.tv_usec) / 1e6;
}

inline std::vector<Document> read_documents(const std::string& path) {
  std::vector<Document> documents;
  for_each_document(path, [&](Document&& document) { documents.push_back(std::move(document)); });
  return documents;
}

struct Case {
  const char* name;
  std::function<void()> work;
};

/// Each case once a turn, turn after turn; the first turn warms up. Medians in the order of the cases.
inline std::vector<double> median_s(const std::vector<Case>& cases, int turns = 5) {
  std::vector<std::vector<double>> times(cases.size());
  for (int turn = 0; turn <= turns; ++turn) {
    for (size_t i = 0; i < cases.size(); ++i) {
      const double begin = user_s();
      cases[i].work();
      if (turn > 0) times[i].push_back(user_s() - begin);
    }
  }
  std::vector<double> medians;
  for (std::vector<double>& of_case : times) {
    std::ranges::sort(of_case);
    medians.push_back(of_case[of_case.size() / 2]);
  }
  return medians;
}

inline void emit(const std::string& name, const std::vector<std::pair<std::string, double>>& readings) {
  std::string line = fmt::format(R"({{"case": "{}")", name);
  for (const auto& [key, value] : readings) line += fmt::format(R"(, "{}": {:.6g})", key, value);
  std::puts((line + "}").c_str());
}

}  // namespace coppice::bench
