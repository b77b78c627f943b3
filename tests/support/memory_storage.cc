#include "tests/support/memory_storage.h"

#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include <absl/strings/str_cat.h>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include "storage/still_wanted.h"

namespace peerchunk::test {
namespace {

absl::StatusOr<ByteRange> ClipOrRefuse(uint64_t offset, uint64_t length, uint64_t size) {
  const std::optional<ByteRange> range = ByteRange::Clip(offset, length, size);
  if (range) return *range;
  return absl::OutOfRangeError(absl::StrCat("offset ", offset, " is past the end at ", size));
}

// Reads [range) of bytes that `pin` keeps alive.
class MemoryRangeReader final : public RangeReader {
 public:
  MemoryRangeReader(std::shared_ptr<const void> pin, std::string_view bytes, ByteRange range,
                    Clock& clock, ReadOptions options)
      : pin_(std::move(pin)),
        bytes_(bytes),
        range_(range),
        clock_(clock),
        options_(std::move(options)) {}

  absl::StatusOr<std::optional<Extent>> Next() override {
    if (!failed_.ok()) return failed_;
    failed_ = CheckStillWanted(clock_, options_);
    if (!failed_.ok()) return failed_;
    if (range_.empty()) return std::nullopt;
    Extent extent{.offset = range_.offset, .length = 0, .zero = PageIsZero(range_.offset)};
    while (extent.length < range_.length && (extent.zero || extent.length < kMiB) &&
           PageIsZero(extent.offset + extent.length) == extent.zero) {
      extent.length = std::min(
          RoundUp(extent.offset + extent.length + 1, kPageBytes) - extent.offset, range_.length);
    }
    range_ = {range_.offset + extent.length, range_.length - extent.length};
    if (!extent.zero) {
      piece_ = bytes_.substr(extent.offset, extent.length);
      extent.pieces = absl::MakeConstSpan(&piece_, 1);
    }
    return extent;
  }

 private:
  bool PageIsZero(uint64_t offset) const {
    return IsAllZero(bytes_.substr(offset, RoundUp(offset + 1, kPageBytes) - offset));
  }

  const std::shared_ptr<const void> pin_;
  const std::string_view bytes_;
  ByteRange range_;
  Clock& clock_;
  const ReadOptions options_;
  std::string_view piece_;
  absl::Status failed_;
};

}  // namespace

// Both kinds of access to one path. Thread-safe.
class MemoryObject final : public Blob, public Seekable {
 public:
  MemoryObject(MemoryStorageProvider& storage, std::string path)
      : storage_(storage), path_(std::move(path)) {}

  absl::Status WriteTo(ByteSink& sink, const ReadOptions& options) override {
    PEERCHUNK_ASSIGN_OR_RETURN(const auto version, storage_.Open(path_, options));
    for (uint64_t offset = 0; offset < version->bytes.size(); offset += kMiB) {
      PEERCHUNK_RETURN_IF_ERROR(CheckStillWanted(storage_.clock_, options));
      PEERCHUNK_RETURN_IF_ERROR(sink.Write(std::string_view(version->bytes).substr(offset, kMiB)));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<ObjectStat> Put(std::string_view bytes, const WriteOptions& options) override {
    return storage_.Write(path_, std::string(bytes), options);
  }

  absl::StatusOr<bool> Exists(const ReadOptions& options) override {
    const auto version = storage_.Open(path_, options);
    if (absl::IsNotFound(version.status())) return false;
    PEERCHUNK_RETURN_IF_ERROR(version.status());
    return true;
  }

  absl::StatusOr<ObjectStat> Stat(const ReadOptions& options) override {
    PEERCHUNK_ASSIGN_OR_RETURN(const auto version, storage_.Open(path_, options));
    return version->stat;
  }

  absl::StatusOr<uint64_t> Size(const ReadOptions& options) override {
    PEERCHUNK_ASSIGN_OR_RETURN(const auto version, storage_.Open(path_, options));
    return version->stat.size;
  }

  absl::StatusOr<size_t> ReadAt(uint64_t offset, absl::Span<char> out,
                                const ReadOptions& options) override {
    PEERCHUNK_ASSIGN_OR_RETURN(const auto version, storage_.Open(path_, options));
    PEERCHUNK_ASSIGN_OR_RETURN(const ByteRange range,
                               ClipOrRefuse(offset, out.size(), version->bytes.size()));
    if (!range.empty()) std::memcpy(out.data(), version->bytes.data() + range.offset, range.length);
    return range.length;
  }

  absl::StatusOr<std::unique_ptr<RangeReader>> OpenRangeReader(
      uint64_t offset, uint64_t length, const ReadOptions& options) override {
    PEERCHUNK_ASSIGN_OR_RETURN(const auto version, storage_.Open(path_, options));
    PEERCHUNK_ASSIGN_OR_RETURN(const ByteRange range,
                               ClipOrRefuse(offset, length, version->bytes.size()));
    return std::make_unique<MemoryRangeReader>(version, version->bytes, range, storage_.clock_,
                                               options);
  }

  absl::StatusOr<ObjectStat> StoreFile(const std::string& path,
                                       const WriteOptions& options) override {
    PEERCHUNK_ASSIGN_OR_RETURN(const File file, File::Open(path, O_RDONLY));
    PEERCHUNK_ASSIGN_OR_RETURN(const uint64_t size, file.Size());
    std::string bytes(size, '\0');
    PEERCHUNK_ASSIGN_OR_RETURN(const size_t read, file.ReadAt(0, absl::MakeSpan(bytes)));
    if (read != size) return absl::FailedPreconditionError("the file shrank");
    return storage_.Write(path_, std::move(bytes), options);
  }

 private:
  MemoryStorageProvider& storage_;
  const std::string path_;
};

absl::StatusOr<std::unique_ptr<Blob>> MemoryStorageProvider::OpenBlob(std::string_view path) {
  PEERCHUNK_RETURN_IF_ERROR(CheckObjectPath(path));
  return std::make_unique<MemoryObject>(*this, std::string(path));
}

absl::StatusOr<std::unique_ptr<Seekable>> MemoryStorageProvider::OpenSeekable(
    std::string_view path) {
  PEERCHUNK_RETURN_IF_ERROR(CheckObjectPath(path));
  return std::make_unique<MemoryObject>(*this, std::string(path));
}

absl::StatusOr<uint64_t> MemoryStorageProvider::DeleteObjectsWithPrefix(
    std::string_view prefix, const WriteOptions& options) {
  if (!prefix.ends_with('/')) return absl::InvalidArgumentError("the prefix must end in '/'");
  PEERCHUNK_RETURN_IF_ERROR(CheckObjectPath(prefix.substr(0, prefix.size() - 1)));
  PEERCHUNK_RETURN_IF_ERROR(CheckStillWanted(clock_, options));
  const MutexLock lock(mutex_);
  return std::erase_if(objects_, [&](const auto& object) {
    return std::string_view(object.first).starts_with(prefix);
  });
}

absl::StatusOr<uint64_t> MemoryStorageProvider::DiscardUnfinishedWrites(
    const std::function<bool(std::string_view path)>& goes_on, const WriteOptions& options) {
  PEERCHUNK_RETURN_IF_ERROR(CheckStillWanted(clock_, options));
  std::set<std::string> unfinished;
  {
    const MutexLock lock(mutex_);
    unfinished = unfinished_;
  }
  std::erase_if(unfinished, goes_on);
  const MutexLock lock(mutex_);
  for (const std::string& path : unfinished) unfinished_.erase(path);
  discarded_.NotifyAll();
  return unfinished.size();
}

void MemoryStorageProvider::SeedUnfinished(std::string_view path) {
  const MutexLock lock(mutex_);
  unfinished_.emplace(path);
}

void MemoryStorageProvider::AwaitUnfinished(const std::set<std::string>& paths) {
  const MutexLock lock(mutex_);
  while (unfinished_ != paths) discarded_.Wait(mutex_);
}

void MemoryStorageProvider::Seed(std::string_view path, std::string bytes) {
  const absl::Status seeded = Write(std::string(path), std::move(bytes), {}).status();
  if (!seeded.ok()) std::abort();  // Unconditional and without a deadline: cannot fail.
}

void MemoryStorageProvider::Remove(std::string_view path) {
  const MutexLock lock(mutex_);
  objects_.erase(std::string(path));
}

std::optional<std::string> MemoryStorageProvider::Bytes(std::string_view path) const {
  const std::shared_ptr<const Version> version = Find(std::string(path));
  if (version == nullptr) return std::nullopt;
  return version->bytes;
}

std::vector<std::string> MemoryStorageProvider::Paths() const {
  const MutexLock lock(mutex_);
  std::vector<std::string> paths;
  for (const auto& [path, version] : objects_) paths.push_back(path);
  return paths;
}

std::shared_ptr<const MemoryStorageProvider::Version> MemoryStorageProvider::Find(
    const std::string& path) const {
  const MutexLock lock(mutex_);
  const auto found = objects_.find(path);
  return found == objects_.end() ? nullptr : found->second;
}

absl::StatusOr<std::shared_ptr<const MemoryStorageProvider::Version>> MemoryStorageProvider::Open(
    const std::string& path, const ReadOptions& options) const {
  PEERCHUNK_RETURN_IF_ERROR(CheckStillWanted(clock_, options));
  std::shared_ptr<const Version> version = Find(path);
  if (version == nullptr) return absl::NotFoundError(absl::StrCat("no object ", path));
  if (options.version && *options.version != version->stat.version) {
    return absl::AbortedError(absl::StrCat("object ", path, " has been replaced"));
  }
  return version;
}

absl::StatusOr<ObjectStat> MemoryStorageProvider::Write(const std::string& path, std::string bytes,
                                                        const WriteOptions& options) {
  PEERCHUNK_RETURN_IF_ERROR(CheckStillWanted(clock_, options));
  if (options.if_absent && options.if_version) {
    return absl::InvalidArgumentError("if_absent and if_version exclude each other");
  }
  const uint32_t crc32c = Crc32c(bytes);
  if (options.crc32c && *options.crc32c != crc32c) {
    return absl::DataLossError("the bytes do not have the checksum they were declared with");
  }
  auto version = std::make_shared<Version>();
  version->stat.size = bytes.size();
  if (knows_crc_) version->stat.crc32c = crc32c;
  version->stat.metadata = options.metadata;
  version->bytes = std::move(bytes);

  const MutexLock lock(mutex_);
  const auto found = objects_.find(path);
  if (options.if_absent && found != objects_.end()) {
    return absl::AlreadyExistsError(absl::StrCat("object ", path, " is there"));
  }
  if (options.if_version &&
      (found == objects_.end() || found->second->stat.version != *options.if_version)) {
    return absl::AbortedError(absl::StrCat("object ", path, " is gone or of another version"));
  }
  version->stat.version = absl::StrCat(++versions_);
  objects_[path] = version;
  return version->stat;
}

}  // namespace peerchunk::test
