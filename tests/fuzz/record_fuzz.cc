// Whatever lies in a build's folder where its record should be: a record, or an error. The first
// byte says what the rest is: a record.json as it stands, one whose checksum is made here, or a
// blocks.crc whose frame is.
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include <absl/strings/str_cat.h>

#include "base/parse_json.h"
#include "peerchunk/base/crc32c.h"
#include "template/record_file.h"

namespace peerchunk {
namespace {

const BuildId kBuild({0xaa, 1});

void Require(bool condition) {
  if (!condition) std::abort();
}

void TryRecord(std::string_view text) {
  const absl::StatusOr<RecordedBuild> build = DecodeRecord(text, kBuild);
  if (!build.ok()) return;
  Require(build->id == kBuild && build->has(FileKind::kMetadata));
  const std::string encoded = EncodeRecord(*build);
  const absl::StatusOr<RecordedBuild> again = DecodeRecord(encoded, kBuild);
  Require(again.ok() && EncodeRecord(*again) == encoded);
}

// As EncodeRecord frames it.
std::string Framed(std::string_view record) {
  const nlohmann::json parsed = ParseJson(record);
  if (parsed.is_discarded()) return std::string(record);
  const std::string text = parsed.dump();
  return absl::StrCat("{\"format\":2,\"crc32c\":", Crc32c(text), ",\"record\":", text, "}");
}

void TryBlocks(std::string_view bytes) {
  RecordedBuild build;
  build.id = kBuild;
  for (const FileKind kind : {FileKind::kMetadata, FileKind::kRootfs, FileKind::kRootfsHeader}) {
    auto checksums = std::make_shared<FileChecksums>();
    checksums->size = 5;
    checksums->crc32c = 0x01020304;
    build.files[kind].checksums = std::move(checksums);
  }
  std::string file = absl::StrCat("PCBLOCK1", absl::string_view(bytes.data(), bytes.size()));
  const uint32_t crc = Crc32c(file);
  for (int shift = 0; shift < 32; shift += 8) file += static_cast<char>(crc >> shift);
  const absl::Status decoded = DecodeBlocks(file, build);
  Require(decoded.ok() || absl::IsDataLoss(decoded));
  Require(build.files.size() == 3);
  // One block per file, and it is the file: nothing else adds up.
  if (decoded.ok()) Require(EncodeBlocks(build).size() == file.size());
}

}  // namespace
}  // namespace peerchunk

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace peerchunk;
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 3) {
    case 0:
      TryRecord(rest);
      break;
    case 1:
      TryRecord(Framed(rest));
      break;
    default:
      TryBlocks(rest);
  }
  return 0;
}
