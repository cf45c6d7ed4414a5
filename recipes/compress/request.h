// What is asked of `coppice compress`: a model, a budget, an effort. The first line of the recipe that it writes holds
// the request in one form, so that the same request finds its recipe again.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace coppice {

/// How small the model shall be: one of a share of its parameters, parameters, bytes of its file, FFN channels.
struct Budget {
  enum class Kind { share, parameters, bytes, channels };
  Kind kind = Kind::share;
  double value = 0;
};

struct CompressRequest {
  std::string model, text;
  Budget budget;
  // One of the two; the other is 0.
  double hours = 0;
  int64_t tokens = 0;  // of recovery
  std::vector<std::string> formats;
  std::string quantization;  // of the gguf; empty = chosen
  int threads = 0;           // 0 = as recipes without the key
};

/// "0.8x" or a number of parameters: 108e6, 108M, 1.2B. UserError::recipe otherwise.
Budget parse_parameters(std::string_view text);
/// 80MB, 1.5GB, 700MiB or a number. UserError::recipe otherwise.
Budget parse_bytes(std::string_view text);
/// A whole number of tokens, 300000 or 3e5. UserError::recipe otherwise.
int64_t parse_tokens(std::string_view text);

/// The request as a command line behind "# ": paths normal, flags in one order, without what decides nothing (where the
/// run lies).
std::string request_line(const CompressRequest& request);
/// A path as users write it, without `./`, `//` or a slash at its end. UserError::recipe(flag) for one that no recipe
/// can hold.
std::string plain_path(const std::string& path, const char* flag);

}  // namespace coppice
