#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "peerchunk/base/mutex.h"
#include "tests/support/gcs/fake_gcs.h"

namespace peerchunk::test {

// One upload of FakeGcs: what of it is persisted.
struct FakeGcs::Session {
  Mutex mutex;
  GcsWriteSpec spec;
  SparseBytes bytes PEERCHUNK_GUARDED_BY(mutex);
  uint32_t crc32c PEERCHUNK_GUARDED_BY(mutex) = 0;
  uint64_t reported PEERCHUNK_GUARDED_BY(mutex) = 0;  // What a client was told is persisted.
  uint64_t writer PEERCHUNK_GUARDED_BY(mutex) = 0;  // The latest stream; earlier ones are aborted.
  std::optional<GcsObject> result PEERCHUNK_GUARDED_BY(mutex);
};

absl::Status FaultStatus(const GcsFault& fault);
// What a fault makes of an object that is answered, and of bytes on their way.
void Distort(const GcsFault& fault, GcsObject& object);
std::string Garbled(std::string_view content);

}  // namespace peerchunk::test
