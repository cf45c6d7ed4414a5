// One loop compiled for every level of x86-64 (AVX-512, AVX2 with FMA, plain SSE2), and the choice between them when it
// is called.
#pragma once

#define COPPICE_INLINE inline __attribute__((always_inline))
#if defined(__x86_64__) && !defined(__clang__)
#define COPPICE_X86_64_LEVELS 1
#endif

namespace coppice {

/// Floats in the widest registers that our kernels use: 16 (AVX-512), 8 (AVX2 with FMA) or 4. The widest that the
/// processor has, unless ATEN_CPU_CAPABILITY=avx2 or =default holds them to 8 or 4, as it holds LibTorch's own kernels.
/// Read once.
int vector_lanes();

/// Calls Body in the copy compiled for vector_lanes(). Body is a COPPICE_INLINE function and must not hold an OpenMP
/// parallel region (the outlined part would have no copies): open the region in the caller, and give each thread its
/// range of rows.
template <auto Body, class Signature = decltype(Body)>
struct PerInstructionSet;

template <auto Body, class Result, class... Arguments>
struct PerInstructionSet<Body, Result (*)(Arguments...)> {
#ifdef COPPICE_X86_64_LEVELS
  __attribute__((target("arch=x86-64-v4"))) static Result on_16_lanes(Arguments... arguments) {
    return Body(arguments...);
  }
  __attribute__((target("arch=x86-64-v3"))) static Result on_8_lanes(Arguments... arguments) {
    return Body(arguments...);
  }
#endif
  static Result on_4_lanes(Arguments... arguments) { return Body(arguments...); }

  static Result call(Arguments... arguments) {
#ifdef COPPICE_X86_64_LEVELS
    const int lanes = vector_lanes();
    if (lanes == 16) return on_16_lanes(arguments...);
    if (lanes == 8) return on_8_lanes(arguments...);
#endif
    return on_4_lanes(arguments...);
  }
  Result operator()(Arguments... arguments) const { return call(arguments...); }
};

template <auto Body>
inline constexpr PerInstructionSet<Body> per_instruction_set{};

}  // namespace coppice
