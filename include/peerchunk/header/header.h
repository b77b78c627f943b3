#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include "peerchunk/base/blob_limits.h"
#include "peerchunk/base/build_id.h"
#include "peerchunk/base/range.h"
#include "peerchunk/header/build_record.h"
#include "peerchunk/header/mapping.h"

namespace peerchunk {

// Limits of the format, the same for reading and writing (docs/decisions/0007).
inline constexpr uint64_t kMaxUncompressedHeaderBytes = 256 * kMiB;  // V4, V5: the inner part
inline constexpr uint64_t kMaxFramesPerBuild = 1'048'576;
inline constexpr uint64_t kMaxBuildsInMapping = 65'535;  // V5: its table of builds
// Ours, to bound memory in every version: as many mappings as a V4 header has room for.
inline constexpr uint64_t kMaxMappings = kMaxUncompressedHeaderBytes / 40;
inline constexpr uint64_t kMaxDeviceBytes = uint64_t{1} << 62;

// The fixed part of a header file.
struct HeaderMetadata {
  uint64_t version = 3;     // the format is `version & 0xFFFF`: 1 to 5
  uint64_t block_size = 0;  // not 0; the unit of ChangedBlocks
  uint64_t size = 0;        // of the device, in bytes
  uint64_t generation = 0;  // 0 for a base, one more per pause
  BuildId build_id;
  BuildId base_build_id;

  uint16_t format() const { return static_cast<uint16_t>(version & 0xFFFF); }

  friend bool operator==(const HeaderMetadata&, const HeaderMetadata&) = default;
};

// One piece of a device: where its bytes are.
struct Segment {
  BuildId build_id;
  uint64_t storage_offset = 0;
  uint64_t length = 0;

  bool is_zero() const { return build_id.is_nil(); }

  friend bool operator==(const Segment&, const Segment&) = default;
};

// One build that a header reads from.
struct Layer {
  BuildId build_id;
  uint64_t required_size = 0;  // end of the last byte that its diff file must have
  uint64_t mapped_bytes = 0;   // of the device, that come from it

  friend bool operator==(const Layer&, const Layer&) = default;
};

struct DecodeOptions {
  BuildId expected_build;  // when not nil, the header must be this build's
  uint64_t max_bytes = kMaxHeaderFileBytes;
  bool from_storage = false;  // refuse a header marked incomplete: those travel between peers only
};

// What V4 and V5 carry beside the mapping; V1 to V3 have no room for it.
struct HeaderExtras {
  std::vector<BuildRecord> builds;  // ascending by build id
  bool incomplete = false;          // the build's upload is pending

  friend bool operator==(const HeaderExtras&, const HeaderExtras&) = default;
};

// Maps a device onto the diff files of several builds, in formats V1 to V5. An immutable value: any
// thread may read it, share it as shared_ptr<const Header>. It is flat: every build that it needs
// is named in it. A Header that exists is within every limit, so encoding it cannot fail and what
// is encoded can be decoded again. Mappings are contiguous from 0 to the size rounded up to a page,
// except in a V1 or V2 header that was decoded with warnings().
class Header {
 public:
  using Layer = ::peerchunk::Layer;

  // InvalidArgument when an invariant or a limit of the version is violated (V1 and V2 included).
  static absl::StatusOr<Header> Create(HeaderMetadata metadata, std::vector<Mapping> mappings,
                                       HeaderExtras extras = {});

  // The header of a device that lies whole in its own build's diff file, at the same offsets.
  static absl::StatusOr<Header> CreateIdentity(HeaderMetadata metadata);

  // Total: any byte string gives a Header or an error in bounded memory. DataLoss for wrong bytes
  // (another build's header included), Unimplemented for a format or flag this code does not know.
  // V1 and V2: violated invariants of the mapping are warnings, not errors.
  static absl::StatusOr<Header> Decode(std::string_view bytes, const DecodeOptions& options = {});

  const HeaderMetadata& metadata() const { return metadata_; }
  absl::Span<const Mapping> mappings() const { return mappings_; }
  uint64_t size() const { return metadata_.size; }
  uint64_t block_size() const { return metadata_.block_size; }
  absl::Span<const std::string> warnings() const { return warnings_; }

  absl::Span<const BuildRecord> builds() const { return extras_.builds; }
  // Null when the header says nothing about this build's diff file.
  const BuildRecord* FindBuild(const BuildId& build_id) const;
  bool incomplete() const { return extras_.incomplete; }

  // The piece of the device that starts at `offset`, up to the end of its mapping or of the device.
  // OutOfRange for offset >= size(). DataLoss where no mapping covers the offset, which only a
  // header with warnings() can answer. O(log mappings), no allocation.
  absl::StatusOr<Segment> Route(uint64_t offset) const;

  // The builds (not nil) that the mappings read, ascending. O(mappings).
  std::vector<Layer> Layers() const;

  // The file in the format that metadata() names.
  std::string Encode() const;
  // The size of Encode() by arithmetic alone; in V4 and V5, whose inner part is then compressed,
  // the size before that: metadata, framing and `uncompressed_size`.
  uint64_t EncodedSize() const;

  // The same device in another format (`version` replaces metadata().version). FailedPrecondition
  // when it has no room for what this header says: warnings(), or, in V1 to V3, an incomplete
  // header or a compressed diff. File sizes and checksums are dropped there.
  absl::StatusOr<Header> WithVersion(uint64_t version) const;

  // The header of the pause that follows this one: merged with the changed blocks, normalized,
  // generation + 1. In V4 and V5 it is incomplete, keeps the records of the builds that it still
  // reads, with the frames that it needs, and has none of its own build. FailedPrecondition when
  // this header has warnings(); InvalidArgument for blocks that MakeDiffMappings refuses or a build
  // id that is nil or already in use here.
  absl::StatusOr<Header> NextGeneration(const BuildId& build_id, const ChangedBlocks& blocks) const;

  // This header once the upload of its own build's diff is done: complete, with this record.
  // FailedPrecondition in V1 to V3, InvalidArgument when the record is not of its own build.
  absl::StatusOr<Header> WithOwnBuild(BuildRecord record) const;

  friend bool operator==(const Header& a, const Header& b) {
    return a.metadata_ == b.metadata_ && a.mappings_ == b.mappings_ && a.extras_ == b.extras_;
  }

 private:
  Header(HeaderMetadata metadata, std::vector<Mapping> mappings, HeaderExtras extras,
         std::vector<std::string> warnings);

  HeaderMetadata metadata_;
  std::vector<Mapping> mappings_;
  HeaderExtras extras_;
  std::vector<std::string> warnings_;
};

}  // namespace peerchunk
