#include "upload/object_upload.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <absl/strings/numbers.h>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

class CrcSink final : public ByteSink {
 public:
  absl::Status Write(std::string_view data) override {
    crc_ = ExtendCrc32c(crc_, data);
    return absl::OkStatus();
  }
  uint32_t crc() const { return crc_; }

 private:
  uint32_t crc_ = 0;
};

absl::StatusOr<uint32_t> CrcOf(Seekable& object, uint64_t size, const ReadOptions& options) {
  PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<RangeReader> reader,
                             object.OpenRangeReader(0, size, options));
  uint32_t crc = 0;
  while (true) {
    PEERCHUNK_ASSIGN_OR_RETURN(const std::optional<Extent> extent, reader->Next());
    if (!extent) return crc;
    if (extent->zero) {
      crc = CombineCrc32c(crc, Crc32cOfZeros(extent->length), extent->length);
    }
    for (const std::string_view piece : extent->pieces) crc = ExtendCrc32c(crc, piece);
  }
}

// The whole of a recorded file, checked.
absl::StatusOr<std::string> ReadAll(LocalBuildFile& file, const ReadOptions& options) {
  std::string bytes(file.size(), '\0');
  PEERCHUNK_RETURN_IF_ERROR(file.ReadAt(0, absl::MakeSpan(bytes.data(), bytes.size()), options));
  return bytes;
}

uint64_t VersionOf(const ObjectStat& stat) {
  const auto found = stat.metadata.find(kVersionKey);
  uint64_t version = 0;
  return found != stat.metadata.end() && absl::SimpleAtoi(found->second, &version) ? version : 0;
}

}  // namespace

// The object of one file: exactly one of the handles is set.
struct ObjectUpload::Object {
  BuildFileId id;
  const FileChecksums& wanted;
  std::stop_token stop;
  std::string token = {};
  uint64_t metadata_version = 0;  // 0: not metadata.json.
  std::unique_ptr<Seekable> seekable;
  std::unique_ptr<Blob> blob;

  ReadOptions Reading() const {
    ReadOptions options;
    options.cancellation = stop;
    options.priority = Priority::kPrefetch;
    options.sources = SourcePolicy::kBaseOnly;
    return options;
  }
  absl::StatusOr<ObjectStat> Stat() {
    return seekable != nullptr ? seekable->Stat(Reading()) : blob->Stat(Reading());
  }
};

absl::StatusOr<ObjectUpload::Object> ObjectUpload::Open(const RecordedBuild& build, FileKind kind,
                                                        std::stop_token stop) {
  Object object{
      {build.id, kind}, *build.files.at(kind).checksums, std::move(stop), build.upload_token};
  if (kind == FileKind::kMetadata) object.metadata_version = build.metadata_version;
  if (IsSeekable(kind)) {
    PEERCHUNK_ASSIGN_OR_RETURN(object.seekable, base_->OpenSeekable(object.id.ObjectPath()));
  } else {
    PEERCHUNK_ASSIGN_OR_RETURN(object.blob, base_->OpenBlob(object.id.ObjectPath()));
  }
  return object;
}

absl::Status ObjectUpload::Upload(const RecordedBuild& build, FileKind kind, std::stop_token stop) {
  absl::StatusOr<Object> object = Open(build, kind, std::move(stop));
  return Annotate(
      object.ok() ? Write(*object) : object.status(),
      absl::StrCat("upload ", BuildFileId{build.id, kind}.ObjectPath(), " to ", base_->Describe()));
}

absl::StatusOr<bool> ObjectUpload::IsInBase(const RecordedBuild& build, FileKind kind,
                                            std::stop_token stop) {
  PEERCHUNK_ASSIGN_OR_RETURN(Object object, Open(build, kind, std::move(stop)));
  const absl::StatusOr<ObjectStat> there = object.Stat();
  if (absl::IsNotFound(there.status())) return false;
  PEERCHUNK_RETURN_IF_ERROR(there);
  return Matches(object, *there);
}

absl::Status ObjectUpload::Write(Object& object) {
  WriteOptions options;
  options.cancellation = object.stop;
  options.suspension = suspension_;
  options.crc32c = object.wanted.crc32c;
  if (!object.token.empty()) options.metadata[kTokenKey] = object.token;
  if (object.metadata_version != 0) {
    options.metadata[kVersionKey] = absl::StrCat(object.metadata_version);
  }
  const absl::StatusOr<ObjectStat> there = object.Stat();
  if (absl::IsNotFound(there.status())) {
    options.if_absent = true;
    return Confirm(object, Send(object, options));
  }
  PEERCHUNK_RETURN_IF_ERROR(there);
  PEERCHUNK_ASSIGN_OR_RETURN(const bool same, Matches(object, *there));
  if (same) return absl::OkStatus();
  const uint64_t version_there = VersionOf(*there);
  const bool older = version_there != 0 && version_there < object.metadata_version;
  const bool half = IsOurs(object, *there) && version_there <= object.metadata_version;
  if (!older && !half) {
    return absl::AlreadyExistsError(absl::StrCat(
        "other bytes are there (", there->size, " bytes, ", object.wanted.size,
        " expected), written by someone else; they are left alone. Find out whose they are, remove "
        "them, then retry this build"));
  }
  options.if_version = there->version;
  return Confirm(object, Send(object, options));
}

bool ObjectUpload::IsOurs(const Object& object, const ObjectStat& stat) {
  const auto token = stat.metadata.find(kTokenKey);
  return !object.token.empty() && token != stat.metadata.end() && token->second == object.token;
}

absl::StatusOr<ObjectStat> ObjectUpload::Send(Object& object, const WriteOptions& options) {
  absl::StatusOr<ObjectStat> written;
  if (object.seekable != nullptr) {
    written = object.seekable->StoreFile(registry_->PathOf(object.id), options);
  } else {
    PEERCHUNK_ASSIGN_OR_RETURN(const std::shared_ptr<LocalBuildFile> file,
                               registry_->OpenFile(object.id));
    if (file->size() != object.wanted.size || file->crc32c() != object.wanted.crc32c) {
      return absl::AbortedError("it was replaced meanwhile");
    }
    PEERCHUNK_ASSIGN_OR_RETURN(const std::string bytes, ReadAll(*file, object.Reading()));
    written = object.blob->Put(bytes, options);
  }
  if (written.ok() && on_sent_) on_sent_(object.id.kind, object.wanted.size);
  return written;
}

// What a write returned is believed only where it names the size and the checksum that were wanted.
absl::Status ObjectUpload::Confirm(Object& object, const absl::StatusOr<ObjectStat>& written) {
  if (absl::IsDataLoss(written.status())) {
    PEERCHUNK_RETURN_IF_ERROR(CheckCopy(object));
    return absl::UnavailableError(written.status().message());  // Spoilt on the way.
  }
  absl::StatusOr<ObjectStat> there = written;
  // Someone was quicker: as a rule an attempt of ours, whose answer was lost.
  const bool raced = absl::IsAlreadyExists(written.status());
  if (raced) there = object.Stat();
  PEERCHUNK_RETURN_IF_ERROR(there);
  PEERCHUNK_ASSIGN_OR_RETURN(const bool same, Matches(object, *there));
  if (same) return absl::OkStatus();
  if (raced) return absl::UnavailableError("other bytes appeared while it was written");
  return absl::UnavailableError(absl::StrCat("the base confirmed ", there->size,
                                             " bytes with another checksum or size than ",
                                             object.wanted.size, " bytes"));
}

absl::StatusOr<bool> ObjectUpload::Matches(Object& object, const ObjectStat& stat) {
  if (stat.size != object.wanted.size) return false;
  if (stat.crc32c) return *stat.crc32c == object.wanted.crc32c;
  // The store does not know: read it back.
  ReadOptions options = object.Reading();
  options.version = stat.version;
  if (object.seekable != nullptr) {
    PEERCHUNK_ASSIGN_OR_RETURN(const uint32_t crc, CrcOf(*object.seekable, stat.size, options));
    return crc == object.wanted.crc32c;
  }
  CrcSink sink;
  PEERCHUNK_RETURN_IF_ERROR(object.blob->WriteTo(sink, options));
  return sink.crc() == object.wanted.crc32c;
}

absl::Status ObjectUpload::CheckCopy(const Object& object) {
  PEERCHUNK_ASSIGN_OR_RETURN(const std::shared_ptr<LocalBuildFile> file,
                             registry_->OpenFile(object.id));
  const auto buffer = std::make_unique_for_overwrite<char[]>(FileChecksums::kBlockBytes);
  for (uint64_t at = 0; at < file->size(); at += FileChecksums::kBlockBytes) {
    PEERCHUNK_RETURN_IF_ERROR(file->ReadAt(
        at, absl::MakeSpan(buffer.get(), FileChecksums::kBlockBytes), object.Reading()));
  }
  return absl::OkStatus();
}

}  // namespace peerchunk
