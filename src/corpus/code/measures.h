// What is measured of a source file to tell code that people wrote from tables, packed scripts and encoded data (as
// StarCoder did, arXiv 2305.06161, appendix A).
#pragma once

#include <string_view>

namespace coppice {

struct CodeMeasures {
  double longest_line = 0, mean_line = 0;  // code points, without line ends
  double alphanumeric = 0;                 // letters and digits / code points
  double minified = 0;                     // bytes in lines of more than 300 code points / bytes
  double data = 0;                         // bytes of numbers and of base64 runs of >= 256 signs / bytes of all but
                                           // white space and commas
};

/// Lines are what LF parts. All 0 of nothing.
CodeMeasures measure_code(std::string_view code);

}  // namespace coppice
