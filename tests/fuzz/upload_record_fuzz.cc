// Whatever lies in the folder of upload sessions: a record that hangs together, or nothing.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "peerchunk/base/range.h"
#include "storage/gcs_core/gcs_stub.h"
#include "storage/gcs_core/upload_record.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace peerchunk;
  const auto found = DecodeUploadRecord({reinterpret_cast<const char*>(data), size});
  if (!found) return 0;
  const UploadRecord& record = found->record;
  if (record.sessions.size() != CeilDiv(record.size, record.part_bytes) ||
      record.sessions.size() > kGcsComposeSources) {
    std::abort();
  }
  const std::string text = EncodeUploadRecord(*found);
  const auto again = DecodeUploadRecord(text);
  if (!again || EncodeUploadRecord(*again) != text) std::abort();
  return 0;
}
