// Any bytes give a Header or an error; a Header that came out can be read, written and read again.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "header/byte_reader.h"
#include "header/byte_writer.h"
#include "header/lz4_frame.h"
#include "header/plain_codec.h"
#include "peerchunk/header/header.h"

namespace peerchunk {
namespace {

const BuildId kBuild({0xaa, 1});
const BuildId kChild({0xbb, 2});

void Require(bool condition) {
  if (!condition) std::abort();
}

// Half of the work of guessing a header is its metadata and LZ4's checksums: the first bytes choose
// whether they are made right here, and the rest is what follows.
std::string MakeFile(std::string_view data) {
  header::ByteReader reader(data);
  uint8_t format = 0;
  uint8_t pages = 0;
  uint8_t flags = 0;
  if (!reader.ReadU8(format) || !reader.ReadU8(pages) || !reader.ReadU8(flags)) return "";
  format %= 6;
  if (format == 0) return std::string(reader.rest());
  std::string file;
  header::AppendMetadata(file, {.version = format,
                                .block_size = kPageBytes,
                                .size = pages * kPageBytes - (flags & 0x80 ? pages : 0),
                                .build_id = kBuild,
                                .base_build_id = kBuild});
  if (format > 3) {
    header::AppendU8(file, flags & 1);
    header::AppendU32(file, static_cast<uint32_t>(reader.remaining()));
    header::AppendLz4Frame(file, reader.rest());
  } else {
    file += reader.rest();
  }
  return file;
}

void Use(const Header& h) {
  const absl::StatusOr<Header> again = Header::Decode(h.Encode());
  Require(again.ok() && *again == h);

  uint64_t offset = 0;
  uint64_t from_builds = 0;
  while (offset < h.size()) {
    const absl::StatusOr<Segment> segment = h.Route(offset);
    if (!segment.ok()) {
      Require(!h.warnings().empty());
      break;
    }
    Require(segment->length > 0 && segment->length <= h.size() - offset);
    offset += segment->length;
    if (!segment->is_zero()) from_builds += segment->length;
  }
  Require(!h.Route(h.size()).ok());
  uint64_t mapped = 0;
  for (const Layer& layer : h.Layers()) mapped += layer.mapped_bytes;
  if (!h.warnings().empty()) return;
  Require(mapped == from_builds);

  const absl::StatusOr<Header> child = h.NextGeneration(kChild, {.dirty = {0}});
  if (!child.ok()) return;
  const absl::StatusOr<Header> decoded =
      Header::Decode(child->Encode(), {.expected_build = kChild});
  Require(decoded.ok() && decoded->mappings() == child->mappings());
  Require(child->Route(0)->build_id == kChild);
}

}  // namespace
}  // namespace peerchunk

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string file = peerchunk::MakeFile({reinterpret_cast<const char*>(data), size});
  const absl::StatusOr<peerchunk::Header> h = peerchunk::Header::Decode(file);
  if (h.ok()) peerchunk::Use(*h);
  return 0;
}
