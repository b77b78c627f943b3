/* launcher COMMAND [ARGUMENT...]: runs the command with one system call changed for it and all its
 * children: madvise(MADV_HUGEPAGE) answers EINVAL, as on a kernel without huge pages. QEMU asks for
 * them, and on a file behind FUSE each fault would then read 2 to 4 MiB instead of a chunk.
 * The command also dies with the program that started it, so no guest is left behind. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#else
#error "unknown architecture"
#endif

static int refuse_huge_pages(void) {
  /* The advice is an int: only the low half of the register counts (little endian). */
  struct sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE_ARCH, 0, 5),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MADV_HUGEPAGE, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog filter = {.len = sizeof(program) / sizeof(program[0]), .filter = program};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

int main(int argc, char** argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: launcher COMMAND [ARGUMENT...]\n");
    return 2;
  }
  const pid_t parent = getppid();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) return 1; /* It died before we asked. */
  /* Without the filter the guest is slower, not wrong. */
  if (refuse_huge_pages() != 0) {
    fprintf(stderr, "launcher: no seccomp filter (%s): faults will read more than they need\n",
            strerror(errno));
  }
  execvp(argv[1], argv + 1);
  fprintf(stderr, "launcher: %s: %s\n", argv[1], strerror(errno));
  return 127;
}
