// fake_gcs: a FakeGcs as a program, for tests that measure their own process and for trying things
// by hand (STORAGE_EMULATOR_HOST_GRPC=<address> peerchunkd --base=gs://bucket). Serves until
// SIGTERM, then prints what it holds.
//
//   fake_gcs [BUCKET [SEED PROBABILITY FAULTS [STALLS]]]
//
// STALLS is a FIFO that gets a byte again and again while a call stalls: whoever reads it owns a
// clock.

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/support/gcs/fake_gcs.h"
#include "tests/support/gcs/fake_gcs_server.h"

int main(int argc, char** argv) {
  using peerchunk::GcsObject;
  using namespace peerchunk::test;  // NOLINT
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);

  FakeGcsOptions options;
  if (!arguments.empty()) options.bucket = arguments[0];
  if (arguments.size() > 4) {
    const int stalls = open(arguments[4].c_str(), O_WRONLY | O_CLOEXEC);
    if (stalls < 0) {
      std::perror(arguments[4].c_str());
      return 1;
    }
    options.while_stalled = [stalls] {
      if (write(stalls, "s", 1) < 0) std::perror("fake_gcs: stalls");
    };
  }
  FakeGcs fake(options);
  if (arguments.size() > 3) {
    fake.InjectAtRandom(std::strtoull(arguments[1].c_str(), nullptr, 10),
                        std::strtod(arguments[2].c_str(), nullptr),
                        static_cast<int>(std::strtol(arguments[3].c_str(), nullptr, 10)));
  }
  const FakeGcsServer server(fake);
  std::printf("address %s\n", server.address().c_str());
  std::fflush(stdout);
  int signal_number = 0;
  sigwait(&signals, &signal_number);

  std::printf("faults %d\n", fake.faults_injected());
  for (const std::string& violation : fake.violations()) {
    std::printf("violation %s\n", violation.c_str());
  }
  for (const std::string& name : fake.Names()) {
    const GcsObject object = *fake.Find(name);
    std::printf("object %s %llu %08x\n", name.c_str(), static_cast<unsigned long long>(object.size),
                *object.crc32c);
  }
  return 0;
}
