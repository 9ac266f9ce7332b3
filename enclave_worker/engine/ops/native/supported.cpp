// Whether this processor, with what its operating system saves of it, can run the build.
#if defined(__AVX512F__)
#define AH_ASK 1
#pragma GCC target("no-avx")  // so that asking uses nothing of what is asked for
#endif
#include "abi.h"

extern "C" {
AH_PUBLIC int32_t ah_abi() { return ah::kAbi; }
AH_PUBLIC int32_t ah_supported() {
#if defined(AH_ASK)
  __builtin_cpu_init();
#define AH_HAS __builtin_cpu_supports
  return AH_HAS("avx512f") && AH_HAS("avx512bw") && AH_HAS("avx512vl") && AH_HAS("avx512dq") &&
         AH_HAS("avx512bf16") && AH_HAS("avx512vnni") && AH_HAS("fma");
#else
  return 1;
#endif
}
}
