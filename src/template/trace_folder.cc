#include "template/trace_folder.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <tuple>
#include <utility>
#include <vector>

#include "base/logging.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

// Larger than any that is written.
constexpr uint64_t kMaxTraceFileBytes = kMiB;

std::string NameOf(const BuildId& build) { return build.ToString() + ".json"; }

}  // namespace

absl::StatusOr<TraceFolder> TraceFolder::Open(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return ErrnoStatus(error.value(), absl::StrCat("make trace folder ", path));
  PEERCHUNK_ASSIGN_OR_RETURN(File folder, File::Open(path, O_RDONLY | O_DIRECTORY));
  return TraceFolder(std::move(folder));
}

std::optional<WorkingSet> TraceFolder::Load(const BuildId& build, uint64_t device_bytes) const {
  const absl::StatusOr<std::string> bytes =
      folder_.ReadSmallFile(NameOf(build), kMaxTraceFileBytes);
  if (absl::IsNotFound(bytes.status())) return std::nullopt;
  absl::StatusOr<std::optional<WorkingSet>> set =
      bytes.ok() ? DecodeWorkingSet(*bytes, device_bytes) : bytes.status();
  if (set.ok()) return *std::move(set);
  Logger("template")
      .warn("event=trace_ignored build={} cause=\"{}\"", build.ToString(), set.status().ToString());
  return std::nullopt;
}

absl::Status TraceFolder::Save(const BuildId& build, const WorkingSet& set) const {
  const absl::Status saved = folder_.ReplaceFile(NameOf(build), EncodeWorkingSet(set));
  if (saved.ok()) RemoveOldest();
  return Annotate(saved, absl::StrCat("keep the trace of ", build.ToString()));
}

void TraceFolder::Forget(const BuildId& build) const {
  folder_.Remove(NameOf(build)).IgnoreError();
}

void TraceFolder::RemoveOldest() const {
  const absl::StatusOr<std::vector<std::string>> names = folder_.List();
  if (!names.ok() || names->size() <= kMaxTraces) return;
  std::vector<std::tuple<time_t, long, std::string>> by_age;
  for (const std::string& name : *names) {
    struct stat info = {};
    if (fstatat(folder_.fd(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) continue;
    by_age.emplace_back(info.st_mtim.tv_sec, info.st_mtim.tv_nsec, name);
  }
  std::sort(by_age.begin(), by_age.end());
  for (size_t i = 0; i + kMaxTraces < by_age.size(); ++i) {
    folder_.Remove(std::get<2>(by_age[i])).IgnoreError();
  }
}

}  // namespace peerchunk
