#include "daemon/node_content.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

// One pass over a pinned file; runs of zeros come out as such, so that copies stay sparse.
class BuildFileReader final : public RangeReader {
 public:
  BuildFileReader(std::shared_ptr<BuildFile> file, uint64_t offset, ReadOptions options)
      : file_(std::move(file)), options_(std::move(options)), buffer_(kMiB), offset_(offset) {}

  absl::StatusOr<std::optional<Extent>> Next() override {
    PEERCHUNK_RETURN_IF_ERROR(error_);
    if (offset_ >= file_->size()) return std::nullopt;
    const absl::StatusOr<size_t> got = file_->ReadAt(offset_, absl::MakeSpan(buffer_), options_);
    if (!got.ok() || *got == 0) {
      error_ = got.ok() ? absl::DataLossError(
                              absl::StrCat("ends at ", offset_, " of ", file_->size(), " bytes"))
                        : got.status();
      return error_;
    }
    piece_ = std::string_view(buffer_.data(), *got);
    Extent extent{.offset = offset_, .length = *got, .zero = IsAllZero(piece_)};
    if (!extent.zero) extent.pieces = absl::MakeConstSpan(&piece_, 1);
    offset_ += *got;
    return extent;
  }

 private:
  const std::shared_ptr<BuildFile> file_;
  const ReadOptions options_;
  std::vector<char> buffer_;
  std::string_view piece_;
  uint64_t offset_;
  absl::Status error_;
};

// The files of a build that was paused here.
class LocalContent final : public BuildContent {
 public:
  LocalContent(TemplateCache& templates, const BuildId& build)
      : templates_(templates), build_(build) {}

  absl::StatusOr<std::shared_ptr<const std::string>> Blob(FileKind kind,
                                                          const ReadOptions& options) override {
    PEERCHUNK_ASSIGN_OR_RETURN(const std::shared_ptr<BuildFile> file, Open(kind));
    if (file == nullptr) return nullptr;
    std::string bytes(file->size(), '\0');
    PEERCHUNK_ASSIGN_OR_RETURN(const size_t got, file->ReadAt(0, absl::MakeSpan(bytes), options));
    if (got != bytes.size()) return absl::DataLossError("the file is shorter than recorded");
    return std::make_shared<const std::string>(std::move(bytes));
  }

  absl::StatusOr<std::optional<DiffStat>> StatDiff(FileKind kind, const ReadOptions&) override {
    PEERCHUNK_ASSIGN_OR_RETURN(const std::shared_ptr<BuildFile> file, Open(kind));
    if (file == nullptr) return std::nullopt;
    return DiffStat{.size = file->size(), .crc32c = file->crc32c()};
  }

  absl::StatusOr<std::unique_ptr<RangeReader>> ReadDiff(FileKind kind, uint64_t offset,
                                                        const ReadOptions& options) override {
    PEERCHUNK_ASSIGN_OR_RETURN(std::shared_ptr<BuildFile> file, Open(kind));
    if (file == nullptr) return absl::NotFoundError("the build has no such file");
    return std::make_unique<BuildFileReader>(std::move(file), offset, options);
  }

 private:
  // Null: the build has no such file.
  absl::StatusOr<std::shared_ptr<BuildFile>> Open(FileKind kind) {
    PEERCHUNK_ASSIGN_OR_RETURN(ServedFile served, templates_.Resolve({build_, kind},
                                                                     /*even_if_durable=*/true,
                                                                     /*with_file=*/true));
    if (served.head.availability == Availability::kAvailable) return std::move(served.file);
    if (served.head.availability == Availability::kAbsent) return nullptr;
    return absl::UnavailableError("this node's copy is going away; try again");
  }

  TemplateCache& templates_;
  const BuildId build_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<BuildContent>> OpenNodeContent(Node& node, const BuildId& build,
                                                              const BuildSources& sources) {
  const absl::StatusOr<NodeBuildInfo> known = node.GetBuild(build);
  if (known.ok() && known->state != BuildState::kUnknown) {
    return std::make_unique<LocalContent>(node.templates(), build);
  }
  PEERCHUNK_ASSIGN_OR_RETURN(std::shared_ptr<StorageProvider> provider,
                             node.OpenBuild(build, sources.For(build)));
  return ContentOf(build, std::move(provider));
}

}  // namespace peerchunk
