// AMX intrinsics whose memory the compiler knows of. `compare_llama.sh` has it included before everything else (`-include`)
// when it compiles llama.cpp.
//
// The cause: GCC 12 (amxtileintrin.h) writes _tile_loadconfig as inline assembly whose operand is "m" (*(const void **) config):
// eight bytes. The processor reads 64. What a program has written to the other 56, widths and heights of the tiles, is then
// read by nobody as far as the compiler knows, so it may leave those writes out; the processor faults on what is there
// instead (general protection: the configuration makes no sense). _tile_loadd names no memory at all, with the same danger for
// tiles that were put together in a local array.
//
// Here the configuration is one operand of 64 bytes, and what is loaded into tiles counts as memory that is read. Compilers whose own
// intrinsics are right lose nothing by it. It is for the AT&T syntax, which is the default.
#ifndef COMPARE_LLAMA_AMX_H
#define COMPARE_LLAMA_AMX_H

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#include <immintrin.h>

static inline __attribute__((__always_inline__)) void compare_llama_tile_loadconfig(const void *config) {
  struct compare_llama_tile_config {
    unsigned char bytes[64];
  };
  __asm__ volatile("ldtilecfg\t%X0" : : "m"(*(const struct compare_llama_tile_config *)config) : "memory");
}

#undef _tile_loadconfig
#define _tile_loadconfig(config) compare_llama_tile_loadconfig(config)

#undef _tile_loadd
#define _tile_loadd(dst, base, stride) compare_llama_tile_loadd(tileloadd, dst, base, stride)
#undef _tile_stream_loadd
#define _tile_stream_loadd(dst, base, stride) compare_llama_tile_loadd(tileloaddt1, dst, base, stride)
// The number of a tile may be a macro of its own: it is replaced before it becomes text.
#define compare_llama_tile_loadd(load, dst, base, stride) compare_llama_tile_loadd_of(load, dst, base, stride)
#define compare_llama_tile_loadd_of(load, dst, base, stride) \
  __asm__ volatile(#load "\t(%0,%1,1), %%tmm" #dst : : "r"((const void *)(base)), "r"((long)(stride)) : "memory")

#endif
#endif
