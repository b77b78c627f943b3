/* PID 1 of the guest: the program whose life the demo follows through pause and resume.
 *
 * It counts on the serial port ten times a second, one line per tick:
 *     TICK 123 bad=0
 *     TICK 124 bad=0 COLD done=4 of=64 bad=0
 * and checks its own bytes as it goes: random pages of the hot region, pages it rewrites itself,
 * random blocks of a file on the disk. `bad` is the number of wrong pages and blocks ever seen.
 *
 * The cold region is written once and then left alone until the line "COLD\n" (or "COLD 2\n": MiB
 * per tick, default 4) arrives on the serial port; "COLD 2 16\n" checks its first 16 MiB, and the next
 * COLD goes on from there. It is a reserved range of physical memory, so it is also one range of the
 * memfile: no page beside it is ever used by the kernel.
 *
 * Environment (kernel command line): hot_mib, cold_mib, cold_at_mib. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "pattern.h"

enum {
  kTickNs = 100 * 1000 * 1000,
  kHotPagesPerTick = 8,
  kFileBlocksPerTick = 2,
  kScratchPages = 64,
  kScratchPagesPerTick = 2,
  kDiskLogBlocks = 16,
  kTicksPerDiskWrite = 5,
  kDefaultColdMibPerTick = 4,
};

struct Cold {
  const uint64_t* words;
  uint64_t mib;
  uint64_t done_mib;
  uint64_t until_mib;
  uint64_t mib_per_tick; /* 0: not told to start yet. */
  uint64_t bad;
};

static int serial = -1;

/* One write per line, so that a line is never mixed with another. */
static void say(const char* format, ...) {
  char line[256];
  va_list args;
  va_start(args, format);
  int size = vsnprintf(line, sizeof(line), format, args);
  va_end(args);
  for (int sent = 0; sent < size;) {
    ssize_t n = write(serial, line + sent, (size_t)(size - sent));
    if (n > 0) sent += (int)n;
  }
}

static void die(const char* what) {
  say("FATAL %s: %s\n", what, strerror(errno));
  tcdrain(serial);
  reboot(RB_POWER_OFF);
  for (;;) pause();
}

static uint64_t number_from_env(const char* name) {
  const char* text = getenv(name);
  if (text == NULL) {
    errno = ENOENT;
    die(name);
  }
  return strtoull(text, NULL, 10);
}

static void open_serial(void) {
  serial = open("/dev/ttyS0", O_RDWR | O_NOCTTY);
  if (serial < 0) {
    reboot(RB_POWER_OFF);
  }
  struct termios mode;
  tcgetattr(serial, &mode);
  cfmakeraw(&mode);
  mode.c_cc[VMIN] = 0; /* Reads return at once. */
  mode.c_cc[VTIME] = 0;
  tcsetattr(serial, TCSANOW, &mode);
  klogctl(8, NULL, 1); /* No kernel message may land in the middle of a tick. */
}

/* The files of /modules, in the order of their names. */
static void load_modules(void) {
  struct dirent** entries;
  int count = scandir("/modules", &entries, NULL, alphasort);
  if (count < 0) die("/modules");
  for (int i = 0; i < count; ++i) {
    if (entries[i]->d_name[0] == '.') continue;
    char path[512];
    snprintf(path, sizeof(path), "/modules/%s", entries[i]->d_name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) != 0) die(path);
    close(fd);
  }
}

static void mount_disk(void) {
  mkdir("/disk", 0755);
  for (int attempt = 0; access("/dev/vda", F_OK) != 0; ++attempt) {
    if (attempt == 1000) die("/dev/vda");
    usleep(10 * 1000);
  }
  if (mount("/dev/vda", "/disk", "ext4", MS_NOATIME, "") != 0) die("mount /dev/vda");
}

static uint64_t* map_hot(uint64_t pages) {
  uint64_t* words = mmap(NULL, pages * kPageBytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (words == MAP_FAILED) die("map memory");
  return words;
}

static uint64_t* map_cold(uint64_t at_mib, uint64_t mib) {
  int fd = open("/dev/mem", O_RDWR | O_CLOEXEC);
  if (fd < 0) die("/dev/mem");
  uint64_t* words =
      mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)(at_mib << 20));
  if (words == MAP_FAILED) die("map reserved memory");
  close(fd);
  return words;
}

static uint64_t next_random(uint64_t* state) {
  *state += 0x9e3779b97f4a7c15u;
  return pattern_mix(*state);
}

static void obey(const char* line, struct Cold* cold) {
  if (strncmp(line, "COLD", 4) != 0) return;
  char* rest;
  uint64_t rate = strtoull(line + 4, &rest, 10);
  uint64_t until = strtoull(rest, NULL, 10);
  if (cold->done_mib == cold->mib) cold->done_mib = 0;
  cold->mib_per_tick = rate != 0 ? rate : kDefaultColdMibPerTick;
  cold->until_mib = until != 0 && until < cold->mib ? until : cold->mib;
}

static void read_commands(struct Cold* cold) {
  static char line[64];
  static size_t used;
  char c;
  while (read(serial, &c, 1) == 1) {
    if (c != '\n' && c != '\r') {
      if (used < sizeof(line) - 1) line[used++] = c;
      continue;
    }
    line[used] = '\0';
    used = 0;
    obey(line, cold);
  }
}

static void check_cold(struct Cold* cold) {
  if (cold->done_mib >= cold->until_mib) return;
  uint64_t end = cold->done_mib + cold->mib_per_tick;
  if (end > cold->until_mib) end = cold->until_mib;
  for (uint64_t page = cold->done_mib * kPagesPerMib; page < end * kPagesPerMib; ++page) {
    if (!pattern_matches(cold->words + page * kPageWords, kColdSeed, page)) ++cold->bad;
  }
  cold->done_mib = end;
}

/* Pages that change all the time: after a resume they prove that the newest generation was read. */
static uint64_t check_and_rewrite_scratch(uint64_t* scratch, uint64_t tick) {
  static uint64_t version[kScratchPages];
  uint64_t bad = 0;
  for (uint64_t i = 0; i < kScratchPagesPerTick; ++i) {
    uint64_t page = (tick * kScratchPagesPerTick + i) % kScratchPages;
    uint64_t* words = scratch + page * kPageWords;
    if (!pattern_matches(words, kScratchSeed, (version[page] << 16) + page)) ++bad;
    ++version[page];
    pattern_fill(words, kScratchSeed, (version[page] << 16) + page);
  }
  return bad;
}

static bool disk_block_matches(int fd, uint64_t block, enum PatternSeed seed, uint64_t page) {
  static uint64_t buffer[kPageWords] __attribute__((aligned(kPageBytes)));
  return pread(fd, buffer, kPageBytes, (off_t)(block * kPageBytes)) == kPageBytes &&
         pattern_matches(buffer, seed, page);
}

/* A ring of blocks on the disk, rewritten in turn and checked when its turn comes again. */
static uint64_t check_and_rewrite_disk_log(int fd) {
  static uint64_t buffer[kPageWords] __attribute__((aligned(kPageBytes)));
  static uint64_t writes;
  uint64_t block = writes % kDiskLogBlocks;
  uint64_t bad = 0;
  if (writes >= kDiskLogBlocks &&
      !disk_block_matches(fd, block, kDiskLogSeed, writes - kDiskLogBlocks)) {
    ++bad;
  }
  pattern_fill(buffer, kDiskLogSeed, writes);
  if (pwrite(fd, buffer, kPageBytes, (off_t)(block * kPageBytes)) != kPageBytes) ++bad;
  ++writes;
  return bad;
}

/* Sleeps until the next tick; a tick that came late moves the ones behind it, without a burst. */
static void wait_for_tick(struct timespec* next) {
  struct timespec now;
  next->tv_nsec += kTickNs;
  if (next->tv_nsec >= 1000000000) {
    next->tv_nsec -= 1000000000;
    ++next->tv_sec;
  }
  clock_gettime(CLOCK_MONOTONIC, &now);
  if (now.tv_sec > next->tv_sec || (now.tv_sec == next->tv_sec && now.tv_nsec > next->tv_nsec)) {
    *next = now;
    return;
  }
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, next, NULL) == EINTR) {
  }
}

int main(void) {
  mkdir("/dev", 0755);
  mount("devtmpfs", "/dev", "devtmpfs", 0, "");
  open_serial();
  load_modules();
  mount_disk();

  const uint64_t hot_pages = number_from_env("hot_mib") * kPagesPerMib;
  const uint64_t cold_mib = number_from_env("cold_mib");
  uint64_t* cold_words = map_cold(number_from_env("cold_at_mib"), cold_mib);
  for (uint64_t page = 0; page < cold_mib * kPagesPerMib; ++page) {
    pattern_fill(cold_words + page * kPageWords, kColdSeed, page);
  }
  uint64_t* hot = map_hot(hot_pages);
  for (uint64_t page = 0; page < hot_pages; ++page) {
    pattern_fill(hot + page * kPageWords, kHotSeed, page);
  }
  uint64_t* scratch = map_hot(kScratchPages);
  for (uint64_t page = 0; page < kScratchPages; ++page) {
    pattern_fill(scratch + page * kPageWords, kScratchSeed, page);
  }

  /* O_DIRECT: each check reads the disk itself, not what memory remembers of it. */
  int file = open("/disk/pattern.bin", O_RDONLY | O_DIRECT | O_CLOEXEC);
  struct stat info;
  if (file < 0 || fstat(file, &info) != 0) die("/disk/pattern.bin");
  const uint64_t file_blocks = (uint64_t)info.st_size / kPageBytes;
  int disk_log = open("/disk/log.bin", O_RDWR | O_DIRECT | O_CLOEXEC);
  if (disk_log < 0 || file_blocks == 0) die("/disk/log.bin");

  struct Cold cold = {.words = cold_words, .mib = cold_mib};
  uint64_t random = 1;
  uint64_t bad = 0;
  struct timespec next;
  clock_gettime(CLOCK_MONOTONIC, &next);
  for (uint64_t tick = 1;; ++tick) {
    /* First the tick, then the work: a resumed guest says at once that it lives. */
    wait_for_tick(&next);
    if (cold.mib_per_tick == 0) {
      say("TICK %llu bad=%llu\n", (unsigned long long)tick, (unsigned long long)bad);
    } else {
      say("TICK %llu bad=%llu COLD done=%llu of=%llu bad=%llu\n", (unsigned long long)tick,
          (unsigned long long)bad, (unsigned long long)cold.done_mib, (unsigned long long)cold.mib,
          (unsigned long long)cold.bad);
    }
    read_commands(&cold);
    for (int i = 0; i < kHotPagesPerTick; ++i) {
      uint64_t page = next_random(&random) % hot_pages;
      if (!pattern_matches(hot + page * kPageWords, kHotSeed, page)) ++bad;
    }
    bad += check_and_rewrite_scratch(scratch, tick);
    for (int i = 0; i < kFileBlocksPerTick; ++i) {
      uint64_t block = next_random(&random) % file_blocks;
      if (!disk_block_matches(file, block, kFileSeed, block)) ++bad;
    }
    if (tick % kTicksPerDiskWrite == 0) bad += check_and_rewrite_disk_log(disk_log);
    if (cold.mib_per_tick != 0) check_cold(&cold);
  }
}
