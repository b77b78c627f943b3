/* Counts 4 KiB pages, for people and for the self-check:
 *     pages zero FILE                       zero pages, all pages
 *     pages differ OLD NEW                  pages that differ, all pages
 *     pages mapped PID FILE FIRST COUNT     of COUNT MiB of FILE from MiB FIRST on: pages that the
 *                                           process has in its page tables, all pages */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { kPage = 4096 };

static void fail(const char* what) {
  fprintf(stderr, "pages: %s: %s\n", what, strerror(errno));
  exit(1);
}

static FILE* open_file(const char* path) {
  FILE* file = fopen(path, "rb");
  if (file == NULL) fail(path);
  return file;
}

/* A last page that is cut off counts as filled up with zeros. */
static int read_page(FILE* file, unsigned char* page) {
  memset(page, 0, kPage);
  return fread(page, 1, kPage, file) > 0;
}

static void count_zero(const char* path) {
  static const unsigned char zero[kPage];
  unsigned char page[kPage];
  uint64_t count = 0, all = 0;
  FILE* file = open_file(path);
  for (; read_page(file, page); ++all) count += memcmp(page, zero, kPage) == 0;
  printf("%llu %llu\n", (unsigned long long)count, (unsigned long long)all);
}

static void count_differing(const char* old_path, const char* new_path) {
  unsigned char old_page[kPage], new_page[kPage];
  uint64_t count = 0, all = 0;
  FILE* old_file = open_file(old_path);
  FILE* new_file = open_file(new_path);
  for (;; ++all) {
    int more = read_page(old_file, old_page);
    more |= read_page(new_file, new_page);
    if (!more) break;
    count += memcmp(old_page, new_page, kPage) != 0;
  }
  printf("%llu %llu\n", (unsigned long long)count, (unsigned long long)all);
}

static uint64_t present_pages(int pagemap, uint64_t address, uint64_t pages) {
  uint64_t count = 0;
  for (uint64_t i = 0; i < pages; ++i) {
    uint64_t entry;
    off_t at = (off_t)((address / kPage + i) * sizeof(entry));
    if (pread(pagemap, &entry, sizeof(entry), at) != sizeof(entry)) fail("pagemap");
    count += entry >> 63;
  }
  return count;
}

static void count_mapped(const char* pid, const char* path, uint64_t first, uint64_t end) {
  char name[64], line[4096];
  char* real = realpath(path, NULL);
  if (real == NULL) fail(path);
  snprintf(name, sizeof(name), "/proc/%s/pagemap", pid);
  int pagemap = open(name, O_RDONLY | O_CLOEXEC);
  if (pagemap < 0) fail(name);
  snprintf(name, sizeof(name), "/proc/%s/maps", pid);
  FILE* maps = open_file(name);
  uint64_t count = 0, mapped = 0;
  while (fgets(line, sizeof(line), maps) != NULL) {
    unsigned long long from, to, offset;
    int path_at = 0;
    line[strcspn(line, "\n")] = '\0';
    if (sscanf(line, "%llx-%llx %*s %llx %*s %*s %n", &from, &to, &offset, &path_at) < 3 ||
        path_at == 0 || strcmp(line + path_at, real) != 0) {
      continue;
    }
    uint64_t begin = offset > first ? offset : first;
    uint64_t stop = offset + (to - from) < end ? offset + (to - from) : end;
    if (begin >= stop) continue;
    count += present_pages(pagemap, from + (begin - offset), (stop - begin) / kPage);
    mapped += (stop - begin) / kPage;
  }
  printf("%llu %llu\n", (unsigned long long)count, (unsigned long long)mapped);
}

int main(int argc, char** argv) {
  if (argc == 3 && strcmp(argv[1], "zero") == 0) {
    count_zero(argv[2]);
  } else if (argc == 4 && strcmp(argv[1], "differ") == 0) {
    count_differing(argv[2], argv[3]);
  } else if (argc == 6 && strcmp(argv[1], "mapped") == 0) {
    uint64_t first = strtoull(argv[4], NULL, 10) << 20;
    count_mapped(argv[2], argv[3], first, first + (strtoull(argv[5], NULL, 10) << 20));
  } else {
    fprintf(stderr, "usage: pages zero FILE | differ OLD NEW | mapped PID FILE MIB MIBS\n");
    return 2;
  }
  return 0;
}
