#include "node/fetch_build.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <utility>

#include "base/temporary_file.h"
#include "peerchunk/base/blob_limits.h"
#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include "peerchunk/header/header.h"

namespace peerchunk {
namespace {

class ProviderContent final : public BuildContent {
 public:
  ProviderContent(const BuildId& build, std::shared_ptr<StorageProvider> provider)
      : build_(build), provider_(std::move(provider)) {}

  absl::StatusOr<std::shared_ptr<const std::string>> Blob(FileKind kind,
                                                          const ReadOptions& options) override {
    PEERCHUNK_ASSIGN_OR_RETURN(const auto blob,
                               provider_->OpenBlob(BuildFileId{build_, kind}.ObjectPath()));
    StringSink sink(MaxBlobBytes(kind));
    const absl::Status read = blob->WriteTo(sink, options);
    if (absl::IsNotFound(read)) return nullptr;
    PEERCHUNK_RETURN_IF_ERROR(read);
    return std::make_shared<const std::string>(std::move(sink.bytes()));
  }

  absl::StatusOr<std::optional<DiffStat>> StatDiff(FileKind kind,
                                                   const ReadOptions& options) override {
    PEERCHUNK_RETURN_IF_ERROR(Open(kind));
    const absl::StatusOr<ObjectStat> stat = diffs_[kind]->Stat(options);
    if (absl::IsNotFound(stat.status())) return std::nullopt;
    PEERCHUNK_RETURN_IF_ERROR(stat);
    return DiffStat{.size = stat->size, .crc32c = stat->crc32c};
  }

  absl::StatusOr<std::unique_ptr<RangeReader>> ReadDiff(FileKind kind, uint64_t offset,
                                                        const ReadOptions& options) override {
    PEERCHUNK_RETURN_IF_ERROR(Open(kind));
    return diffs_[kind]->OpenRangeReader(offset, UINT64_MAX - offset, options);
  }

 private:
  absl::Status Open(FileKind kind) {
    std::unique_ptr<Seekable>& diff = diffs_[kind];
    if (diff != nullptr) return absl::OkStatus();
    PEERCHUNK_ASSIGN_OR_RETURN(diff,
                               provider_->OpenSeekable(BuildFileId{build_, kind}.ObjectPath()));
    return absl::OkStatus();
  }

  const BuildId build_;
  const std::shared_ptr<StorageProvider> provider_;
  std::map<FileKind, std::unique_ptr<Seekable>> diffs_;  // Opened when first needed.
};

// One FetchBuild call.
class Fetch {
 public:
  Fetch(const BuildId& build, BuildContent& content, const FetchOptions& options)
      : build_(build), content_(content), options_(options) {}

  absl::StatusOr<std::vector<FetchedFile>> Run() {
    PEERCHUNK_RETURN_IF_ERROR(OpenFolder());
    PEERCHUNK_RETURN_IF_ERROR(ReadBlobs());
    PEERCHUNK_RETURN_IF_ERROR(CheckHeaders());
    // Nothing is added to a folder that has another build.
    PEERCHUNK_RETURN_IF_ERROR(HasBlob(FileKind::kMetadata).status());
    for (const FileKind diff : {FileKind::kMemfile, FileKind::kRootfs}) {
      if (blobs_[HeaderOf(diff)] != nullptr) PEERCHUNK_RETURN_IF_ERROR(CopyDiff(diff));
    }
    for (const FileKind kind : {FileKind::kMemfileHeader, FileKind::kRootfsHeader,
                                FileKind::kSnapfile, FileKind::kMetadata}) {
      if (blobs_[kind] != nullptr) PEERCHUNK_RETURN_IF_ERROR(WriteBlob(kind));
    }
    return std::move(files_);
  }

 private:
  absl::Status Context(const absl::Status& status, FileKind kind) const {
    return Annotate(status, absl::StrCat("fetch ", BuildFileId{build_, kind}.ObjectPath()));
  }

  absl::Status OpenFolder() {
    PEERCHUNK_ASSIGN_OR_RETURN(const File root, File::Open("/", O_RDONLY | O_DIRECTORY));
    const size_t begin = options_.folder.find_first_not_of('/');
    if (options_.folder.empty() || options_.folder[0] != '/' || begin == std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat(
          "'", options_.folder, "' is not an absolute path of a folder to fetch into"));
    }
    // An operator's path: symbolic links in it are followed, so it is not opened beneath a handle.
    for (size_t slash = options_.folder.find('/', begin);;
         slash = options_.folder.find('/', slash + 1)) {
      const std::string path = options_.folder.substr(0, slash);
      if (mkdir(path.c_str(), 0750) != 0 && errno != EEXIST) {
        return ErrnoStatus(errno, "make the folder " + path);
      }
      if (slash == std::string::npos) break;
    }
    absl::StatusOr<File> folder = File::Open(options_.folder, O_RDONLY | O_DIRECTORY);
    PEERCHUNK_RETURN_IF_ERROR(folder);
    folder_ = *std::move(folder);
    TemporaryFile::RemoveLeftovers(folder_);
    return absl::OkStatus();
  }

  absl::Status ReadBlobs() {
    for (const FileKind kind : {FileKind::kMetadata, FileKind::kRootfsHeader,
                                FileKind::kMemfileHeader, FileKind::kSnapfile}) {
      absl::StatusOr<std::shared_ptr<const std::string>> blob =
          content_.Blob(kind, ReadWithin(options_.patience));
      if (!blob.ok()) return Context(blob.status(), kind);
      if (*blob != nullptr) state_.total_size += (*blob)->size();
      if (kind == FileKind::kMetadata && *blob == nullptr) {
        return Context(
            absl::NotFoundError("no source has this build, and the base does not have it "
                                "complete (its metadata.json is missing)"),
            kind);
      }
      blobs_[kind] = *std::move(blob);
    }
    if (blobs_[FileKind::kRootfsHeader] == nullptr) {
      return Context(absl::DataLossError("every build has this file, but no source has it"),
                     FileKind::kRootfsHeader);
    }
    if ((blobs_[FileKind::kMemfileHeader] == nullptr) != (blobs_[FileKind::kSnapfile] == nullptr)) {
      return Context(absl::DataLossError("memfile.header and snapfile come both or not at all"),
                     FileKind::kSnapfile);
    }
    return absl::OkStatus();
  }

  absl::Status CheckHeaders() {
    for (const FileKind kind : {FileKind::kMemfileHeader, FileKind::kRootfsHeader}) {
      if (blobs_[kind] == nullptr) continue;
      const absl::StatusOr<Header> header =
          Header::Decode(*blobs_[kind], {.expected_build = build_});
      if (!header.ok()) return Context(header.status(), kind);
      for (const Layer& layer : header->Layers()) {
        if (layer.build_id == build_) required_size_[kind] = layer.required_size;
      }
    }
    return absl::OkStatus();
  }

  absl::Status CopyDiff(FileKind kind) {
    ReadOptions read = ReadWithin(options_.patience);
    read.least_size = required_size_[HeaderOf(kind)];
    const auto stat = content_.StatDiff(kind, read);
    if (!stat.ok()) return Context(stat.status(), kind);
    if (!stat->has_value()) {
      return Context(absl::DataLossError("its header is there, but no source has the file"), kind);
    }
    const BuildContent::DiffStat& diff = **stat;
    if (diff.size < required_size_[HeaderOf(kind)]) {
      return Context(
          absl::DataLossError(absl::StrCat("has ", diff.size, " bytes, its header needs ",
                                           required_size_[HeaderOf(kind)])),
          kind);
    }
    state_.total_size += diff.size;
    Begin(kind, diff.size);
    PEERCHUNK_ASSIGN_OR_RETURN(const bool kept, KeepDiff(kind, diff));
    if (kept) return absl::OkStatus();
    PEERCHUNK_ASSIGN_OR_RETURN(TemporaryFile partial, TemporaryFile::Create(folder_));
    const absl::StatusOr<uint32_t> crc = CopyDiffTo(partial.file(), kind, diff.size);
    if (!crc.ok()) return Context(crc.status(), kind);
    if (diff.crc32c && *diff.crc32c != *crc) {
      return Context(absl::DataLossError("the whole file does not match its recorded CRC32C"),
                     kind);
    }
    PEERCHUNK_RETURN_IF_ERROR(Commit(partial, kind));
    files_.push_back({.kind = kind, .size = diff.size, .crc32c = *crc});
    return absl::OkStatus();
  }

  // metadata.json says that what is beside it is complete and belongs together. So it goes before
  // the first other file is replaced, even one that is the same in both builds, and comes last.
  absl::Status Commit(TemporaryFile& partial, FileKind kind) {
    if (kind != FileKind::kMetadata && options_.overwrite) {
      const absl::Status removed = folder_.Remove(FileName(FileKind::kMetadata));
      if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
    }
    return partial.MoveTo(folder_, std::string(FileName(kind)), /*if_absent=*/false);
  }

  ReadOptions ReadWithin(absl::Duration limit) const {
    ReadOptions options = options_.read;
    options.deadline = std::min(options.deadline, options_.clock->Now() + limit);
    return options;
  }

  // Returns the CRC32C of what was written.
  absl::StatusOr<uint32_t> CopyDiffTo(const File& out, FileKind kind, uint64_t size) {
    Copy copy{.out = out, .size = size};
    while (true) {
      const uint64_t before = copy.done;
      const absl::Status read = CopyStream(kind, copy);
      if (read.ok()) break;
      const bool worth_another = (absl::IsDeadlineExceeded(read) || absl::IsUnavailable(read)) &&
                                 copy.done > before &&
                                 options_.clock->Now() < options_.read.deadline;
      if (!worth_another) return read;
    }
    if (copy.done != size) {
      return absl::DataLossError(absl::StrCat("ends at ", copy.done, " of ", size, " bytes"));
    }
    PEERCHUNK_RETURN_IF_ERROR(out.Truncate(size));  // Zeros at the end are a hole too.
    return copy.crc;
  }

  struct Copy {
    const File& out;
    uint64_t size = 0;
    uint64_t done = 0;
    uint32_t crc = 0;
  };

  absl::Status CopyStream(FileKind kind, Copy& copy) {
    constexpr int kStreamPatience = 10;
    PEERCHUNK_ASSIGN_OR_RETURN(
        const std::unique_ptr<RangeReader> reader,
        content_.ReadDiff(kind, copy.done, ReadWithin(kStreamPatience * options_.patience)));
    while (true) {
      PEERCHUNK_ASSIGN_OR_RETURN(const std::optional<Extent> extent, reader->Next());
      if (!extent) return absl::OkStatus();
      if (extent->offset != copy.done || extent->length > copy.size - copy.done) {
        return absl::DataLossError(absl::StrCat("an extent at ", extent->offset, " of ",
                                                extent->length, " bytes is out of order"));
      }
      if (extent->zero) {
        copy.crc = CombineCrc32c(copy.crc, Crc32cOfZeros(extent->length), extent->length);
        state_.zero_bytes += extent->length;
      } else {
        for (const std::string_view piece : extent->pieces) {
          copy.crc = ExtendCrc32c(copy.crc, piece);
        }
        PEERCHUNK_RETURN_IF_ERROR(copy.out.WriteVectorAt(copy.done, extent->pieces));
      }
      copy.done += extent->length;
      Advance(extent->length);
    }
  }

  // True when the folder has this very file already.
  absl::StatusOr<bool> KeepDiff(FileKind kind, const BuildContent::DiffStat& diff) {
    const absl::StatusOr<File> old = folder_.OpenAt(FileName(kind), O_RDONLY);
    if (absl::IsNotFound(old.status())) return false;
    PEERCHUNK_RETURN_IF_ERROR(old);
    PEERCHUNK_ASSIGN_OR_RETURN(const uint64_t size, old->Size());
    if (size == diff.size && diff.crc32c) {
      PEERCHUNK_ASSIGN_OR_RETURN(const uint32_t crc, Crc32cOfFile(*old));
      if (crc == *diff.crc32c) {
        files_.push_back({.kind = kind, .size = size, .crc32c = crc, .was_there = true});
        Advance(size);
        return true;
      }
    }
    if (!options_.overwrite) return Occupied(kind);
    return false;
  }

  static absl::StatusOr<uint32_t> Crc32cOfFile(const File& file) {
    std::vector<char> buffer(kMiB);
    uint32_t crc = 0;
    for (uint64_t offset = 0;; offset += buffer.size()) {
      PEERCHUNK_ASSIGN_OR_RETURN(const size_t got, file.ReadAt(offset, absl::MakeSpan(buffer)));
      crc = ExtendCrc32c(crc, std::string_view(buffer.data(), got));
      if (got < buffer.size()) return crc;
    }
  }

  absl::Status Occupied(FileKind kind) const {
    return absl::AlreadyExistsError(absl::StrCat(options_.folder, "/", AbslView(FileName(kind)),
                                                 " is there and differs: choose another folder, or "
                                                 "allow it to be overwritten"));
  }

  // True when the folder has this very blob already; AlreadyExists when it has another one, which
  // may not be overwritten.
  absl::StatusOr<bool> HasBlob(FileKind kind) const {
    const absl::StatusOr<std::string> old =
        folder_.ReadSmallFile(FileName(kind), MaxBlobBytes(kind));
    if (absl::IsNotFound(old.status())) return false;
    if (old.ok() && *old == *blobs_.at(kind)) return true;
    if (!options_.overwrite) return Occupied(kind);
    return false;
  }

  absl::Status WriteBlob(FileKind kind) {
    const std::string& bytes = *blobs_[kind];
    Begin(kind, bytes.size());
    FetchedFile file{.kind = kind, .size = bytes.size(), .crc32c = Crc32c(bytes)};
    PEERCHUNK_ASSIGN_OR_RETURN(file.was_there, HasBlob(kind));
    if (!file.was_there) {
      PEERCHUNK_ASSIGN_OR_RETURN(TemporaryFile partial, TemporaryFile::Create(folder_));
      if (const absl::Status written = partial.file().WriteAt(0, bytes); !written.ok()) {
        return Context(written, kind);
      }
      PEERCHUNK_RETURN_IF_ERROR(Commit(partial, kind));
    }
    files_.push_back(file);
    Advance(bytes.size());
    return absl::OkStatus();
  }

  void Begin(FileKind kind, uint64_t size) {
    state_.kind = kind;
    state_.file_size = size;
    state_.file_done = 0;
    Advance(0);
  }
  void Advance(uint64_t bytes) {
    state_.file_done += bytes;
    state_.total_done += bytes;
    if (options_.on_progress) options_.on_progress(state_);
  }

  const BuildId build_;
  BuildContent& content_;
  const FetchOptions& options_;
  File folder_;
  std::map<FileKind, std::shared_ptr<const std::string>> blobs_;
  std::map<FileKind, uint64_t>
      required_size_;  // By header kind: what it maps to this build's diff.
  std::vector<FetchedFile> files_;
  FetchState state_;
};

}  // namespace

std::unique_ptr<BuildContent> ContentOf(const BuildId& build,
                                        std::shared_ptr<StorageProvider> provider) {
  return std::make_unique<ProviderContent>(build, std::move(provider));
}

absl::StatusOr<std::vector<FetchedFile>> FetchBuild(const BuildId& build, BuildContent& content,
                                                    const FetchOptions& options) {
  return Fetch(build, content, options).Run();
}

}  // namespace peerchunk
