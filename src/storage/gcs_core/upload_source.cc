#include "storage/gcs_core/upload_source.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <absl/strings/str_cat.h>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/status.h"
#include "storage/gcs_core/gcs_stub.h"

namespace peerchunk {
namespace {

class FileSource final : public UploadSource {
 public:
  FileSource(File file, std::string path, const struct stat& at_first)
      : file_(std::move(file)), path_(std::move(path)), at_first_(at_first) {}

  uint64_t size() const override { return static_cast<uint64_t>(at_first_.st_size); }

  absl::Status ReadAt(uint64_t offset, absl::Span<char> out) const override {
    PEERCHUNK_ASSIGN_OR_RETURN(const size_t got, file_.ReadAt(offset, out));
    if (got == out.size()) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat("'", path_, "' became shorter while it was sent"));
  }

  // Not the time of the last status change: a new hard link moves that.
  absl::Status CheckUnchanged() const override {
    struct stat now;
    if (::fstat(file_.fd(), &now) != 0) return ErrnoStatus(errno, path_);
    if (now.st_size == at_first_.st_size && now.st_mtim.tv_sec == at_first_.st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == at_first_.st_mtim.tv_nsec) {
      return absl::OkStatus();
    }
    return absl::DataLossError(absl::StrCat("'", path_, "' changed while it was sent"));
  }

  std::string Fingerprint() const override {
    return absl::StrCat(at_first_.st_dev, ":", at_first_.st_ino, ":", at_first_.st_mtim.tv_sec, ".",
                        at_first_.st_mtim.tv_nsec);
  }

 private:
  const File file_;
  const std::string path_;
  const struct stat at_first_;
};

class BytesSource final : public UploadSource {
 public:
  explicit BytesSource(std::string_view bytes) : bytes_(bytes) {}

  uint64_t size() const override { return bytes_.size(); }
  absl::Status ReadAt(uint64_t offset, absl::Span<char> out) const override {
    std::memcpy(out.data(), bytes_.data() + offset, out.size());
    return absl::OkStatus();
  }
  absl::Status CheckUnchanged() const override { return absl::OkStatus(); }
  std::string Fingerprint() const override { return absl::StrCat("crc32c:", Crc32c(bytes_)); }

 private:
  const std::string_view bytes_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<UploadSource>> OpenFileSource(const std::string& path) {
  PEERCHUNK_ASSIGN_OR_RETURN(File file, File::Open(path, O_RDONLY | O_NONBLOCK));
  struct stat at_first;
  if (::fstat(file.fd(), &at_first) != 0) return ErrnoStatus(errno, path);
  if (!S_ISREG(at_first.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat("'", path, "' is not a regular file"));
  }
  return std::make_unique<FileSource>(std::move(file), path, at_first);
}

std::unique_ptr<UploadSource> MemorySource(std::string_view bytes) {
  return std::make_unique<BytesSource>(bytes);
}

absl::StatusOr<uint32_t> HashSource(const UploadSource& source, uint64_t begin, uint64_t end,
                                    std::string& buffer, Clock& clock, const CallLimits& limits) {
  uint32_t crc32c = 0;
  while (begin < end) {
    PEERCHUNK_RETURN_IF_ERROR(limits.Check(clock));
    buffer.resize(std::min(end - begin, kGcsMessageBytes));
    PEERCHUNK_RETURN_IF_ERROR(source.ReadAt(begin, absl::MakeSpan(buffer)));
    crc32c = ExtendCrc32c(crc32c, buffer);
    begin += buffer.size();
  }
  return crc32c;
}

}  // namespace peerchunk
