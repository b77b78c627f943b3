/* The checked pattern of the guest's memory and of its file: every 4 KiB page depends on its region
 * and its position, looks random, and is never zero, so a page that is stale, zero or from another
 * place never passes for the right one. Shared by the guest and by the programs on the host. */
#ifndef PEERCHUNK_SCRIPTS_GUEST_PATTERN_H_
#define PEERCHUNK_SCRIPTS_GUEST_PATTERN_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { kPageBytes = 4096, kPageWords = kPageBytes / 8, kPagesPerMib = 256 };

enum PatternSeed { kHotSeed = 1, kColdSeed = 2, kFileSeed = 3, kScratchSeed = 4, kDiskLogSeed = 5 };

static inline uint64_t pattern_mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

static inline uint64_t pattern_base(enum PatternSeed seed, uint64_t page) {
  return pattern_mix(((uint64_t)seed << 56) + page + 1);
}

static inline void pattern_fill(uint64_t* words, enum PatternSeed seed, uint64_t page) {
  const uint64_t base = pattern_base(seed, page);
  for (uint64_t i = 0; i < kPageWords; ++i) words[i] = pattern_mix(base + i);
}

static inline bool pattern_matches(const uint64_t* words, enum PatternSeed seed, uint64_t page) {
  const uint64_t base = pattern_base(seed, page);
  for (uint64_t i = 0; i < kPageWords; ++i) {
    if (words[i] != pattern_mix(base + i)) return false;
  }
  return true;
}

#endif
