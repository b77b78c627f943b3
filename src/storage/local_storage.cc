#include "peerchunk/storage/local_storage.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include <absl/strings/str_cat.h>

#include "base/sparse_file.h"
#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include "storage/local_folder.h"
#include "storage/local_reader.h"
#include "storage/rate_limit.h"
#include "storage/still_wanted.h"

namespace peerchunk {
namespace {

// What all objects of one provider share. Owned by the provider, which outlives them.
struct Shared {
  LocalStorageOptions options;
  std::unique_ptr<LocalFolder> folder;
  RateLimit reads;
  RateLimit writes;

  Clock& clock() { return *options.clock; }
};

// One object, as both kinds of access see it. Thread-safe: every call opens the object anew.
class LocalPath {
 public:
  LocalPath(Shared& shared, std::string path) : shared_(shared), path_(std::move(path)) {}

  absl::Status Context(std::string_view what, const absl::Status& status) const {
    return Annotate(
        status, absl::StrCat(AbslView(what), " ", path_, " in folder ", shared_.options.folder));
  }

  absl::StatusOr<LocalObject> Open(const ReadOptions& options, bool with_sidecar) const {
    PEERCHUNK_RETURN_IF_ERROR(CheckStillWanted(shared_.clock(), options));
    PEERCHUNK_ASSIGN_OR_RETURN(LocalObject object, shared_.folder->OpenObject(path_, with_sidecar));
    if (options.version && *options.version != object.stat.version) {
      return absl::AbortedError("the object has been replaced");
    }
    return object;
  }

  absl::StatusOr<LocalReader> Read(const ReadOptions& options, uint64_t offset,
                                   uint64_t length) const {
    // Only a read from the beginning can be of the whole object, and so be checked.
    PEERCHUNK_ASSIGN_OR_RETURN(LocalObject object, Open(options, offset == 0));
    const std::optional<ByteRange> range = ByteRange::Clip(offset, length, object.stat.size);
    if (!range) {
      return absl::OutOfRangeError(
          absl::StrCat("offset ", offset, " is past the end at ", object.stat.size));
    }
    return LocalReader(std::move(object), *range, shared_.clock(), shared_.reads, options);
  }

  absl::StatusOr<ObjectStat> Stat(const ReadOptions& options) const {
    absl::StatusOr<LocalObject> object = Open(options, true);
    if (!object.ok()) return Context("stat", object.status());
    return std::move(object->stat);
  }

  // Checks what can be checked before anything is written, and makes the file to write to.
  absl::StatusOr<TemporaryFile> BeginWrite(const WriteOptions& options) const {
    if (options.if_absent && options.if_version) {
      return absl::InvalidArgumentError("if_absent and if_version exclude each other");
    }
    PEERCHUNK_RETURN_IF_ERROR(CheckStillWanted(shared_.clock(), options));
    return shared_.folder->Begin();
  }

  absl::Status SpendWrite(uint64_t bytes, const WriteOptions& options) const {
    PEERCHUNK_RETURN_IF_ERROR(CheckStillWanted(shared_.clock(), options));
    return shared_.writes.Spend(bytes, options.deadline, options.cancellation);
  }

  absl::StatusOr<ObjectStat> Publish(TemporaryFile pending, uint64_t size, uint32_t crc32c,
                                     const WriteOptions& options) const {
    if (options.crc32c && *options.crc32c != crc32c) {
      return absl::DataLossError("the bytes do not have the checksum they were declared with");
    }
    PEERCHUNK_RETURN_IF_ERROR(CheckStillWanted(shared_.clock(), options));
    return shared_.folder->Publish(std::move(pending), path_, {size, crc32c, options.metadata},
                                   options);
  }

 private:
  Shared& shared_;
  const std::string path_;
};

class LocalBlob final : public Blob {
 public:
  explicit LocalBlob(LocalPath path) : path_(std::move(path)) {}

  absl::Status WriteTo(ByteSink& sink, const ReadOptions& options) override {
    return path_.Context("read", CopyTo(sink, options));
  }

  absl::StatusOr<ObjectStat> Put(std::string_view bytes, const WriteOptions& options) override {
    absl::StatusOr<ObjectStat> written = Write(bytes, options);
    if (!written.ok()) return path_.Context("write", written.status());
    return written;
  }

  absl::StatusOr<bool> Exists(const ReadOptions& options) override {
    const absl::StatusOr<LocalObject> object = path_.Open(options, false);
    if (absl::IsNotFound(object.status())) return false;
    if (!object.ok()) return path_.Context("look for", object.status());
    return true;
  }

  absl::StatusOr<ObjectStat> Stat(const ReadOptions& options) override {
    return path_.Stat(options);
  }

 private:
  absl::Status CopyTo(ByteSink& sink, const ReadOptions& options) {
    PEERCHUNK_ASSIGN_OR_RETURN(LocalReader reader, path_.Read(options, 0, UINT64_MAX));
    const auto buffer = std::make_unique_for_overwrite<char[]>(reader.MaxPieceBytes());
    while (true) {
      PEERCHUNK_ASSIGN_OR_RETURN(const size_t read,
                                 reader.Read(absl::MakeSpan(buffer.get(), reader.MaxPieceBytes())));
      if (read == 0) return absl::OkStatus();
      PEERCHUNK_RETURN_IF_ERROR(sink.Write(std::string_view(buffer.get(), read)));
    }
  }

  absl::StatusOr<ObjectStat> Write(std::string_view bytes, const WriteOptions& options) {
    PEERCHUNK_ASSIGN_OR_RETURN(TemporaryFile pending, path_.BeginWrite(options));
    for (uint64_t offset = 0; offset < bytes.size();) {
      const std::string_view piece = bytes.substr(offset, kMiB);
      PEERCHUNK_RETURN_IF_ERROR(path_.SpendWrite(piece.size(), options));
      PEERCHUNK_RETURN_IF_ERROR(pending.file().WriteAt(offset, piece));
      offset += piece.size();
    }
    return path_.Publish(std::move(pending), bytes.size(), Crc32c(bytes), options);
  }

  const LocalPath path_;
};

class LocalRangeReader final : public RangeReader {
 public:
  LocalRangeReader(LocalPath path, LocalReader reader)
      : path_(std::move(path)), reader_(std::move(reader)) {}

  absl::StatusOr<std::optional<Extent>> Next() override {
    if (!failed_.ok()) return failed_;
    absl::StatusOr<std::optional<Extent>> extent = reader_.NextExtent();
    if (!extent.ok()) return failed_ = path_.Context("read", extent.status());
    return extent;
  }

 private:
  const LocalPath path_;
  LocalReader reader_;
  absl::Status failed_;
};

class LocalSeekable final : public Seekable {
 public:
  explicit LocalSeekable(LocalPath path) : path_(std::move(path)) {}

  absl::StatusOr<uint64_t> Size(const ReadOptions& options) override {
    const absl::StatusOr<LocalObject> object = path_.Open(options, false);
    if (!object.ok()) return path_.Context("size of", object.status());
    return object->stat.size;
  }

  absl::StatusOr<size_t> ReadAt(uint64_t offset, absl::Span<char> out,
                                const ReadOptions& options) override {
    absl::StatusOr<LocalReader> reader = path_.Read(options, offset, out.size());
    size_t done = 0;
    while (reader.ok()) {
      const absl::StatusOr<size_t> read = reader->Read(out.subspan(done));
      if (!read.ok()) return path_.Context("read", read.status());
      if (*read == 0) return done;
      done += *read;
    }
    return path_.Context("read", reader.status());
  }

  absl::StatusOr<std::unique_ptr<RangeReader>> OpenRangeReader(
      uint64_t offset, uint64_t length, const ReadOptions& options) override {
    absl::StatusOr<LocalReader> reader = path_.Read(options, offset, length);
    if (!reader.ok()) return path_.Context("read", reader.status());
    return std::make_unique<LocalRangeReader>(path_, *std::move(reader));
  }

  absl::StatusOr<ObjectStat> StoreFile(const std::string& path,
                                       const WriteOptions& options) override {
    absl::StatusOr<ObjectStat> stored = Store(path, options);
    if (!stored.ok()) return path_.Context(absl::StrCat("store ", path, " as"), stored.status());
    return stored;
  }

  absl::StatusOr<ObjectStat> Stat(const ReadOptions& options) override {
    return path_.Stat(options);
  }

 private:
  absl::StatusOr<ObjectStat> Store(const std::string& path, const WriteOptions& options) {
    PEERCHUNK_ASSIGN_OR_RETURN(const File source, File::Open(path, O_RDONLY | O_NONBLOCK));
    PEERCHUNK_ASSIGN_OR_RETURN(TemporaryFile pending, path_.BeginWrite(options));
    struct stat before = {};
    if (fstat(source.fd(), &before) != 0) return ErrnoStatus(errno, "fstat");
    if (!S_ISREG(before.st_mode)) return absl::FailedPreconditionError("not a regular file");
    const auto size = static_cast<uint64_t>(before.st_size);
    PEERCHUNK_ASSIGN_OR_RETURN(const uint32_t crc32c, Copy(source, size, pending.file(), options));
    struct stat after = {};
    if (fstat(source.fd(), &after) != 0) return ErrnoStatus(errno, "fstat");
    if (after.st_size != before.st_size || after.st_mtim.tv_sec != before.st_mtim.tv_sec ||
        after.st_mtim.tv_nsec != before.st_mtim.tv_nsec) {
      return absl::FailedPreconditionError("the file changed while it was read");
    }
    return path_.Publish(std::move(pending), size, crc32c, options);
  }

  // Copies data and leaves holes; returns the checksum of the whole.
  absl::StatusOr<uint32_t> Copy(const File& source, uint64_t size, const File& target,
                                const WriteOptions& options) {
    const auto buffer = std::make_unique_for_overwrite<char[]>(kMiB);
    uint32_t crc32c = 0;
    for (uint64_t offset = 0; offset < size;) {
      PEERCHUNK_ASSIGN_OR_RETURN(FileSegment segment, SegmentAt(source, offset, size));
      segment.end = std::min(segment.end, offset + kMiB);
      const uint64_t length = segment.end - offset;
      PEERCHUNK_RETURN_IF_ERROR(path_.SpendWrite(length, options));
      if (segment.hole) {
        crc32c = CombineCrc32c(crc32c, Crc32cOfZeros(length), length);
      } else {
        const absl::Span<char> piece(buffer.get(), length);
        PEERCHUNK_ASSIGN_OR_RETURN(const size_t read, source.ReadAt(offset, piece));
        if (read != length) return absl::FailedPreconditionError("the file shrank");
        const std::string_view data(piece.data(), piece.size());
        crc32c = ExtendCrc32c(crc32c, data);
        PEERCHUNK_RETURN_IF_ERROR(target.WriteAt(offset, data));
      }
      offset = segment.end;
    }
    PEERCHUNK_RETURN_IF_ERROR(target.Truncate(size));
    return crc32c;
  }

  const LocalPath path_;
};

class LocalStorage final : public StorageProvider {
 public:
  LocalStorage(const LocalStorageOptions& options, std::unique_ptr<LocalFolder> folder)
      : shared_{options, std::move(folder),
                RateLimit(options.read_bytes_per_second, *options.clock),
                RateLimit(options.write_bytes_per_second, *options.clock)} {}

  absl::StatusOr<std::unique_ptr<Blob>> OpenBlob(std::string_view path) override {
    PEERCHUNK_RETURN_IF_ERROR(LocalFolder::CheckPath(path));
    return std::make_unique<LocalBlob>(LocalPath(shared_, std::string(path)));
  }

  absl::StatusOr<std::unique_ptr<Seekable>> OpenSeekable(std::string_view path) override {
    PEERCHUNK_RETURN_IF_ERROR(LocalFolder::CheckPath(path));
    return std::make_unique<LocalSeekable>(LocalPath(shared_, std::string(path)));
  }

  absl::StatusOr<uint64_t> DeleteObjectsWithPrefix(std::string_view prefix,
                                                   const WriteOptions& options) override {
    if (!prefix.ends_with('/')) return absl::InvalidArgumentError("the prefix must end in '/'");
    const std::string_view path = prefix.substr(0, prefix.size() - 1);
    PEERCHUNK_RETURN_IF_ERROR(LocalFolder::CheckPath(path));
    const auto still_wanted = [&] { return CheckStillWanted(shared_.clock(), options); };
    PEERCHUNK_RETURN_IF_ERROR(still_wanted());
    absl::StatusOr<uint64_t> deleted = shared_.folder->DeleteBelow(path, still_wanted);
    if (deleted.ok()) return deleted;
    return Annotate(deleted.status(), absl::StrCat("delete ", AbslView(prefix), " in folder ",
                                                   shared_.options.folder));
  }

  // They lie under temporary names, which go with their writers or at the next start.
  absl::StatusOr<uint64_t> DiscardUnfinishedWrites(const std::function<bool(std::string_view)>&,
                                                   const WriteOptions&) override {
    return 0;
  }

  std::string Describe() const override { return absl::StrCat("folder ", shared_.options.folder); }

 private:
  Shared shared_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<StorageProvider>> LocalStorageProvider::Open(
    LocalStorageOptions options) {
  PEERCHUNK_ASSIGN_OR_RETURN(std::unique_ptr<LocalFolder> folder,
                             LocalFolder::Open(options.folder));
  return std::make_unique<LocalStorage>(options, std::move(folder));
}

}  // namespace peerchunk
