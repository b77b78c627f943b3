/* write-pattern FILE MIB: the file on the guest's disk that the guest checks. */
#include <stdio.h>
#include <stdlib.h>

#include "pattern.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: write-pattern FILE MIB\n");
    return 2;
  }
  FILE* file = fopen(argv[1], "wb");
  if (file == NULL) {
    perror(argv[1]);
    return 1;
  }
  const uint64_t pages = strtoull(argv[2], NULL, 10) * kPagesPerMib;
  for (uint64_t page = 0; page < pages; ++page) {
    uint64_t words[kPageWords];
    pattern_fill(words, kFileSeed, page);
    fwrite(words, sizeof(words), 1, file);
  }
  if (ferror(file) || fclose(file) != 0) {
    perror(argv[1]);
    return 1;
  }
  return 0;
}
