#include "recipes/folder/devices.h"

#include <algorithm>
#include <array>

namespace coppice {
namespace {

constexpr double kGiB = 1024.0 * 1024 * 1024;

// Fast is cuDNN 9.19 on an H200, 64 query heads and 8 of keys (cudnn-frontend's benchmark); repeatable is
// FlashAttention-2 on an H100 (FlashAttention-3's charts).
constexpr std::array kHopperFast = {AttentionRate{2048, 484e12, 370e12}, AttentionRate{4096, 591e12, 474e12},
                                    AttentionRate{8192, 644e12, 541e12}, AttentionRate{16384, 673e12, 579e12},
                                    AttentionRate{32768, 688e12, 581e12}};
constexpr std::array kHopperRepeatable = {AttentionRate{2048, 298e12, 291e12}, AttentionRate{4096, 319e12, 310e12},
                                          AttentionRate{8192, 333e12, 318e12}};

// NVIDIA's A100 data sheet, 80 GB SXM: 312 TFLOP/s dense bf16, 2,039 GB/s, 108 multiprocessors, 1.41 GHz boost. The
// rest is assumed: of the 312, attention the 60% and 48% that the H200's fast one reaches of 989 at 4096 tokens,
// whichever it is; 128 lanes issue a clock on each multiprocessor, of which 64 compute in fp32.
constexpr std::array kAmpere = {AttentionRate{4096, 187e12, 150e12}};
constexpr double kAmpereInstructions = 108 * 128 * 1.41e9;  // multiprocessors, lanes, clock

constexpr std::array<DeviceRow, 3> kDevices = {{
    {"h200", "NVIDIA H200 141 GB", "NVIDIA H200", 139 * kGiB, 989e12, 790e12, kH200Rates, kHopperFast,
     kHopperRepeatable,
     "data sheet 989 TFLOP/s, 4.8 TB/s; measured on one: products 769 to 798 TFLOP/s, copy 4.3 TB/s"},
    {"h100", "NVIDIA H100 80 GB", "NVIDIA H100 80GB HBM3", 79 * kGiB, 989e12, 790e12, kH100Rates, kHopperFast,
     kHopperRepeatable, "data sheet 989 TFLOP/s, 3.35 TB/s; assumed: products of the H200, 90% of the bandwidth"},
    {"a100",
     "NVIDIA A100 80 GB",
     "NVIDIA A100-SXM4-80GB",
     79 * kGiB,
     312e12,
     249e12,
     {1.83e12, kAmpereInstructions, kAmpereInstructions / 8},
     kAmpere,
     kAmpere,
     "data sheet (80 GB SXM) 312 TFLOP/s, 2.04 TB/s, 108 multiprocessors at 1.41 GHz; assumed: products and attention "
     "at the shares of the data sheet that the H200 reaches, 90% of the bandwidth"},
}};

}  // namespace

std::span<const DeviceRow> device_rows() { return kDevices; }

const DeviceRow* find_device_row(std::string_view name) {
  const auto* const found = std::ranges::find(kDevices, name, &DeviceRow::name);
  return found == kDevices.end() ? nullptr : found;
}

const DeviceRow* find_row_of_device(std::string_view cuda_name) {
  const auto* const found = std::ranges::find(kDevices, cuda_name, &DeviceRow::cuda_name);
  return found == kDevices.end() ? nullptr : found;
}

}  // namespace coppice
