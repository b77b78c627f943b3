#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/range.h"
#include "peerchunk/build/build_file.h"

namespace peerchunk::test {

// A build file in memory of which only the first `present` bytes are "here". Thread-safe after
// set-up.
class FakeBuildFile : public BuildFile {
 public:
  FakeBuildFile(BuildFileId id, std::string bytes)
      : present(bytes.size()), id_(id), bytes_(std::move(bytes)) {}

  const BuildFileId& id() const override { return id_; }
  uint64_t size() const override { return bytes_.size(); }
  std::optional<uint32_t> crc32c() const override { return Crc32c(bytes_); }
  absl::StatusOr<size_t> ReadAt(uint64_t offset, absl::Span<char> out,
                                const ReadOptions&) override {
    if (!read_error.ok()) return read_error;
    const auto range = ByteRange::Clip(offset, out.size(), bytes_.size());
    if (!range) return absl::OutOfRangeError("past the end");
    std::memcpy(out.data(), bytes_.data() + range->offset, range->length);
    return range->length;
  }
  bool TryReadAt(uint64_t offset, absl::Span<char> out) override {
    return in_memory && ReadAt(offset, out, {}).ok();
  }
  uint64_t PresentBytes(uint64_t offset, uint64_t limit) const override {
    return offset >= present ? 0 : std::min(limit, present - offset);
  }
  uint64_t AllocatedBytes() const override { return bytes_.size(); }

  uint64_t present;
  bool in_memory = false;
  absl::Status read_error;

 private:
  const BuildFileId id_;
  const std::string bytes_;
};

}  // namespace peerchunk::test
