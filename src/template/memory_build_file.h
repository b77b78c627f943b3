#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include "peerchunk/build/build_file.h"

namespace peerchunk {

// A blob of a loaded template, served from memory. Immutable and thread-safe.
class MemoryBuildFile final : public BuildFile {
 public:
  MemoryBuildFile(BuildFileId id, std::shared_ptr<const std::string> bytes)
      : id_(id), bytes_(std::move(bytes)), crc32c_(Crc32c(*bytes_)) {}

  const BuildFileId& id() const override { return id_; }
  uint64_t size() const override { return bytes_->size(); }
  std::optional<uint32_t> crc32c() const override { return crc32c_; }
  absl::StatusOr<size_t> ReadAt(uint64_t offset, absl::Span<char> out,
                                const ReadOptions& /*options*/) override {
    const std::optional<ByteRange> range = ByteRange::Clip(offset, out.size(), size());
    if (!range) {
      return absl::OutOfRangeError(
          absl::StrCat("read ", id_.ObjectPath(), " from ", offset, ": it has ", size(), " bytes"));
    }
    std::memcpy(out.data(), bytes_->data() + range->offset, range->length);
    return range->length;
  }
  uint64_t PresentBytes(uint64_t offset, uint64_t limit) const override {
    return offset >= size() ? 0 : std::min(limit, size() - offset);
  }
  uint64_t AllocatedBytes() const override { return 0; }  // Of disk.

 private:
  const BuildFileId id_;
  const std::shared_ptr<const std::string> bytes_;
  const uint32_t crc32c_;
};

}  // namespace peerchunk
