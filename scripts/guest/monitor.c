/* monitor SOCKET PID COMMAND...: talks QMP to the QEMU process PID. Commands, done in turn:
 *     stop | cont | quit
 *     save FILE    device state of a stopped guest; its memory stays in the memfile
 *     load FILE    device state into a QEMU started with -incoming defer; ends when it is paused
 * Ends with 1 and the reason when a command fails or QEMU has gone. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { kPollUs = 2000, kTimeoutSeconds = 60 };

static pid_t qemu_pid;
static int qemu_socket = -1;
static FILE* answers;

static void fail(const char* format, ...) {
  va_list args;
  va_start(args, format);
  fprintf(stderr, "monitor: ");
  vfprintf(stderr, format, args);
  fprintf(stderr, "\n");
  va_end(args);
  exit(1);
}

/* A zombie whose parent has not looked yet counts as gone. */
static bool qemu_runs(void) {
  char path[64];
  char state = 'Z';
  snprintf(path, sizeof(path), "/proc/%d/stat", (int)qemu_pid);
  FILE* stat = fopen(path, "r");
  if (stat == NULL) return false;
  if (fscanf(stat, "%*d (%*[^)]) %c", &state) != 1) state = 'Z';
  fclose(stat);
  return state != 'Z' && state != 'X';
}

/* One step of a bounded wait. */
static void wait_a_little(const char* what) {
  static time_t deadline;
  if (deadline == 0) deadline = time(NULL) + kTimeoutSeconds;
  if (!qemu_runs()) fail("QEMU (pid %d) ended while waiting for %s", (int)qemu_pid, what);
  if (time(NULL) > deadline) fail("timed out waiting for %s", what);
  usleep(kPollUs);
}

static void connect_to(const char* path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof(address.sun_path)) fail("socket path too long: %s", path);
  strcpy(address.sun_path, path);
  qemu_socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (qemu_socket < 0) fail("socket: %s", strerror(errno));
  while (connect(qemu_socket, (struct sockaddr*)&address, sizeof(address)) != 0) {
    wait_a_little("its monitor socket");
  }
  answers = fdopen(qemu_socket, "r");
}

/* The answer to the last command, events skipped; owned by this function. */
static const char* answer(const char* command) {
  static char* line;
  static size_t capacity;
  while (getline(&line, &capacity, answers) > 0) {
    if (strncmp(line, "{\"return\"", 9) == 0) return line;
    if (strncmp(line, "{\"error\"", 8) == 0) fail("%s: %s", command, line);
  }
  fail("QEMU hung up during: %s", command);
  return NULL;
}

static const char* ask(const char* command) {
  dprintf(qemu_socket, "%s\n", command);
  return answer(command);
}

static const char* ask_simple(const char* name) {
  char command[128];
  snprintf(command, sizeof(command), "{\"execute\":\"%s\"}", name);
  return ask(command);
}

/* Paths go through a shell and through JSON: what would need escaping in either is refused. */
static void check_path(const char* path) {
  if (strpbrk(path, "'\"\\\n") != NULL || strlen(path) > 1000) fail("unusable path: %s", path);
}

static void ignore_shared_memory(void) {
  ask("{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":"
      "[{\"capability\":\"x-ignore-shared\",\"state\":true}]}}");
}

static void save(const char* path) {
  char command[4096];
  check_path(path);
  unlink(path);
  ignore_shared_memory();
  /* "completed" comes before cat has written the end: the rename tells when it has. */
  snprintf(command, sizeof(command),
           "{\"execute\":\"migrate\",\"arguments\":{\"uri\":"
           "\"exec:cat > '%s.part' && mv '%s.part' '%s'\"}}",
           path, path, path);
  ask(command);
  for (;;) {
    const char* state = ask_simple("query-migrate");
    if (strstr(state, "\"status\": \"failed\"") != NULL) fail("save %s: %s", path, state);
    if (strstr(state, "\"status\": \"completed\"") != NULL && access(path, F_OK) == 0) return;
    wait_a_little("the device state to be saved");
  }
}

static void load(const char* path) {
  char command[4096];
  check_path(path);
  if (access(path, R_OK) != 0) fail("load %s: %s", path, strerror(errno));
  ignore_shared_memory();
  snprintf(command, sizeof(command),
           "{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"exec:cat '%s'\"}}", path);
  ask(command);
  while (strstr(ask_simple("query-status"), "\"status\": \"paused\"") == NULL) {
    wait_a_little("the device state to be loaded");
  }
}

int main(int argc, char** argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: monitor SOCKET PID stop|cont|quit|save FILE|load FILE ...\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  qemu_pid = (pid_t)atoi(argv[2]);
  connect_to(argv[1]);
  ask_simple("qmp_capabilities");
  for (int i = 3; i < argc; ++i) {
    if (strcmp(argv[i], "save") == 0 && i + 1 < argc) {
      save(argv[++i]);
    } else if (strcmp(argv[i], "load") == 0 && i + 1 < argc) {
      load(argv[++i]);
    } else if (strcmp(argv[i], "stop") == 0 || strcmp(argv[i], "cont") == 0 ||
               strcmp(argv[i], "quit") == 0) {
      ask_simple(argv[i]);
    } else {
      fail("unknown command: %s", argv[i]);
    }
  }
  return 0;
}
