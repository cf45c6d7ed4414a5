#include "src/tensors/device.h"

#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <new>

#include "src/base/errors.h"
#include "src/tensors/built_with_cuda.h"

namespace coppice {

std::optional<at::Device> find_device(std::string_view name) {
  if (name == "cpu") return at::Device(at::kCPU);
  if (name == "cuda") return at::Device(at::kCUDA, 0);
  constexpr std::string_view kNumbered = "cuda:";
  if (!name.starts_with(kNumbered)) return std::nullopt;
  const std::string_view digits = name.substr(kNumbered.size());
  unsigned char index = 0;
  const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
  if (error != std::errc() || stop != digits.data() + digits.size() || index > 127) return std::nullopt;
  return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));  // eight bits with a sign
}

std::string device_name(at::Device device) { return device.str(); }

std::string dtype_name(at::ScalarType dtype) { return std::string(c10::getDtypeNames(dtype).first); }

std::string_view why_unavailable(at::Device device) {
  if (device.is_cpu() || (device.is_cuda() && kBuiltWithCuda)) return "";
  return device.is_cuda() ? "this build has no CUDA kernels" : "coppice computes on cpu and cuda alone";
}

void check_available(at::Device device, std::string_view what) {
  const std::string_view why = why_unavailable(device);
  if (!why.empty()) throw DeviceError::unavailable(fmt::format("{} is on {}, but {}", what, device_name(device), why));
}

bool built_with_cuda() { return kBuiltWithCuda; }

bool is_out_of_memory(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) return true;
  const auto* const of_torch = dynamic_cast<const c10::Error*>(&error);
  if (of_torch == nullptr) return false;
  const std::string_view text = of_torch->what_without_backtrace();
  return std::ranges::any_of(  // of the host, of a device, of a device's libraries
      std::array{"not enough memory", "can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED"},
      [&](const char* phrase) { return text.find(phrase) != std::string_view::npos; });
}

}  // namespace coppice
