#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "peerchunk/base/clock.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/base/range.h"
#include "peerchunk/build/build_file.h"
#include "peerchunk/header/header.h"
#include "peerchunk/template/template.h"
#include "tests/support/test_build.h"

namespace peerchunk::test {

// A diff in memory whose every read first does what a test says. Thread-safe.
class ScriptedDiff final : public BuildFile {
 public:
  // Returns what the read is to return; OK: the bytes.
  using Script = std::function<absl::Status(ByteRange range, const ReadOptions& options)>;

  ScriptedDiff(BuildFileId id, std::string bytes) : id_(id), bytes_(std::move(bytes)) {}

  void OnRead(Script script) {
    const MutexLock lock(mutex_);
    script_ = std::move(script);
  }
  uint64_t reads() const {
    const MutexLock lock(mutex_);
    return reads_;
  }
  void AwaitReads(uint64_t count) {
    const MutexLock lock(mutex_);
    while (reads_ < count) changed_.Wait(mutex_);
  }

  const BuildFileId& id() const override { return id_; }
  uint64_t size() const override { return bytes_.size(); }
  std::optional<uint32_t> crc32c() const override { return std::nullopt; }
  absl::StatusOr<size_t> ReadAt(uint64_t offset, absl::Span<char> out,
                                const ReadOptions& options) override {
    Script script;
    {
      const MutexLock lock(mutex_);
      ++reads_;
      script = script_;
    }
    changed_.NotifyAll();
    const auto range = ByteRange::Clip(offset, out.size(), bytes_.size());
    if (!range) return absl::OutOfRangeError("past the end");
    if (script != nullptr) {
      const absl::Status status = script(*range, options);
      if (!status.ok()) return status;
    }
    std::memcpy(out.data(), bytes_.data() + range->offset, range->length);
    return range->length;
  }
  uint64_t PresentBytes(uint64_t, uint64_t limit) const override { return limit; }
  uint64_t AllocatedBytes() const override { return bytes_.size(); }

 private:
  const BuildFileId id_;
  const std::string bytes_;
  mutable Mutex mutex_;
  CondVar changed_;
  Script script_ PEERCHUNK_GUARDED_BY(mutex_);
  uint64_t reads_ PEERCHUNK_GUARDED_BY(mutex_) = 0;
};

// Waits, as a source that never answers does, until the read is cancelled.
inline absl::Status StallUntilCancelled(ByteRange, const ReadOptions& options) {
  Clock::Real().SleepUntil(absl::InfiniteFuture(), options.cancellation);
  return absl::CancelledError("cancelled");
}

// A device over the one diff of a base build.
inline std::unique_ptr<Device> DeviceOver(const TestBuild& build, FileKind kind,
                                          std::shared_ptr<ScriptedDiff> diff) {
  auto header = std::make_shared<const Header>(*Header::Decode(build.files.at(HeaderOf(kind))));
  return std::make_unique<Device>(
      kind, std::move(header),
      [diff = std::move(diff)](const BuildFileId&, const ReadOptions&)
          -> absl::StatusOr<std::shared_ptr<BuildFile>> { return diff; });
}

// A template whose sources do what a test says.
struct ScriptedTemplate {
  explicit ScriptedTemplate(const TestBuildSpec& spec = {}) : build(MakeTestBuild(spec)) {
    Template::Parts parts{.id = build.id, .memfile = nullptr};
    parts.metadata = Blob(FileKind::kMetadata);
    rootfs = Diff(FileKind::kRootfs);
    parts.rootfs = DeviceOver(build, FileKind::kRootfs, rootfs);
    if (!build.filesystem_only()) {
      memfile = Diff(FileKind::kMemfile);
      parts.memfile = DeviceOver(build, FileKind::kMemfile, memfile);
      parts.snapfile = Blob(FileKind::kSnapfile);
    }
    loaded = std::make_shared<Template>(std::move(parts));
  }

  std::shared_ptr<ScriptedDiff> Diff(FileKind kind) const {
    return std::make_shared<ScriptedDiff>(BuildFileId{build.id, kind}, build.files.at(kind));
  }
  std::shared_ptr<const std::string> Blob(FileKind kind) const {
    return std::make_shared<const std::string>(build.files.at(kind));
  }

  TestBuild build;
  std::shared_ptr<ScriptedDiff> memfile;  // Null in a filesystem-only build.
  std::shared_ptr<ScriptedDiff> rootfs;
  std::shared_ptr<Template> loaded;
};

}  // namespace peerchunk::test
