// Two threads write one variable, once with and once without a lock: ThreadSanitizer must be silent
// about the first (argument "locked") and fail the program for the second ("racy"). Nothing orders
// the threads, so the race is seen however they are scheduled.
#include <cstdio>
#include <string_view>
#include <thread>

#include "peerchunk/base/mutex.h"

namespace {

struct Shared {
  peerchunk::Mutex mutex;
  int locked PEERCHUNK_GUARDED_BY(mutex) = 0;
  int racy = 0;
};

void WriteLocked(Shared& shared) {
  peerchunk::MutexLock lock(shared.mutex);
  ++shared.locked;
}

void WriteRacy(Shared& shared) { ++shared.racy; }

}  // namespace

int main(int argc, char** argv) {
  const std::string_view how = argc == 2 ? argv[1] : "";
  if (how != "locked" && how != "racy") return 2;
  void (*const write)(Shared&) = how == "locked" ? WriteLocked : WriteRacy;
  Shared shared;
  std::thread first([&] { write(shared); });
  std::thread second([&] { write(shared); });
  first.join();
  second.join();
  std::puts(argv[1]);
  return 0;
}
