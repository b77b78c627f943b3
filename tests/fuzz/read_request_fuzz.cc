// No request makes the server allocate for more entries than were counted beforehand, however its
// bytes are cut, and what they name is a file of a build or an error. The first byte says into
// pieces of which size they are cut.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include "peerchunk/v1/chunk_service.pb.h"
#include "service/read_request.h"
#include "service/wire.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using google::protobuf::io::ArrayInputStream;
  if (size == 0) return 0;
  const int piece = data[0] + 1;
  const auto length = static_cast<int>(size - 1);
  ArrayInputStream counted(data + 1, length, piece);
  const size_t entries = peerchunk::CountEntries(counted);
  ArrayInputStream bytes(data + 1, length, piece);
  peerchunk::v1::ReadBuildFileRequest request;
  // What is malformed may have been allocated for, too. A parser looks that far beyond the end
  // before it notices.
  constexpr size_t kSlopBytes = 16;
  (void)request.ParsePartialFromZeroCopyStream(&bytes);
  const auto allocated = static_cast<size_t>(request.reads_size() + request.cancelled_size());
  if (allocated > entries + kSlopBytes) std::abort();
  for (const peerchunk::v1::FileRead& read : request.reads()) {
    const auto file = peerchunk::FileFromWire(read.read().build_id(), read.read().file());
    if (!file.ok() && !absl::IsInvalidArgument(file.status())) std::abort();
  }
  return 0;
}
