// Whatever lies where the local provider keeps what it knows of an object: its sidecar, or
// DataLoss.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "storage/local_sidecar.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace peerchunk;
  const absl::StatusOr<LocalSidecar> sidecar =
      DecodeSidecar({reinterpret_cast<const char*>(data), size});
  if (!sidecar.ok()) {
    if (!absl::IsDataLoss(sidecar.status())) std::abort();
    return 0;
  }
  const absl::StatusOr<std::string> text = EncodeSidecar(*sidecar);
  if (!text.ok()) std::abort();
  const absl::StatusOr<LocalSidecar> again = DecodeSidecar(*text);
  if (!again.ok() || again->size != sidecar->size || again->crc32c != sidecar->crc32c ||
      again->metadata != sidecar->metadata) {
    std::abort();
  }
  return 0;
}
