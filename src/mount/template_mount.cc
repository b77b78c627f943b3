#include "peerchunk/mount/template_mount.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <stop_token>
#include <utility>

#include "base/logging.h"
#include "base/rename.h"
#include "mount/fuse_files.h"
#include "mount/fuse_session.h"
#include "mount/mount_point.h"
#include "mount/writable_device.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

// A new file without a name: it is gone with its descriptor, also when the process is killed.
absl::StatusOr<File> MakeOverlay(const File& folder) {
  const std::string name = TemporaryName();
  PEERCHUNK_ASSIGN_OR_RETURN(File file, folder.OpenAt(name, O_RDWR | O_CREAT | O_EXCL, 0600));
  // Not File::Remove, which may want a descriptor: the file would stay behind.
  if (unlinkat(folder.fd(), name.c_str(), 0) != 0) return ErrnoStatus(errno, "unlink " + name);
  return file;
}

absl::StatusOr<File> OpenOverlayFolder(const std::string& path) {
  if (path.empty()) return absl::InvalidArgumentError("a mount needs a folder for its overlay");
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return ErrnoStatus(error.value(), "overlay folder " + path);
  return File::Open(path, O_RDONLY | O_DIRECTORY);
}

}  // namespace

struct TemplateMount::Impl {
  Impl(std::shared_ptr<Template> mounted, TemplateMountOptions given, MountPoint claimed)
      : build(std::move(mounted)),
        options(std::move(given)),
        point(std::move(claimed)),
        files({.readahead_bytes = options.readahead_bytes,
               .tasks_at_a_time = std::max<size_t>(1, options.threads),
               .unmounting = unmounting.get_token(),
               .changed = options.clock->Now()}) {}
  // Also of a mount that failed. Stays when something else is in it.
  ~Impl() { rmdir(options.overlay_folder.c_str()); }

  absl::Status AddDevice(FileKind kind, Device& device, const File& folder) {
    PEERCHUNK_ASSIGN_OR_RETURN(File overlay, MakeOverlay(folder));
    files.AddDevice(std::make_unique<WritableDevice>(
        device, WritableDevice::Options{.kind = kind,
                                        .overlay = std::move(overlay),
                                        .read_deadline = options.read_deadline,
                                        .clock = options.clock,
                                        .metrics = options.metrics}));
    return absl::OkStatus();
  }

  // Whether what is mounted at our path is ours.
  bool StillMounted() const {
    const auto now = point.Mounted();
    return now.ok() && *now && **now == entry;
  }

  void Unmount() {
    if (StillMounted() && umount2(point.path().c_str(), UMOUNT_NOFOLLOW) != 0 && errno == EBUSY) {
      Logger("mount").warn("event=unmounted_in_use path={}", point.path());
      // MNT_FORCE ends the connection: who waits for an answer gets ECONNABORTED.
      umount2(point.path().c_str(), MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW);
    }
    unmounting.request_stop();
    session = nullptr;
  }

  const std::shared_ptr<Template> build;
  const TemplateMountOptions options;
  const MountPoint point;
  std::stop_source unmounting;
  FuseFiles files;
  MountEntry entry;
  std::unique_ptr<FuseSession> session;
};

absl::StatusOr<std::unique_ptr<TemplateMount>> TemplateMount::Mount(std::shared_ptr<Template> build,
                                                                    TemplateMountOptions options) {
  PEERCHUNK_RETURN_IF_ERROR(CheckFuseDevice("/dev/fuse"));
  PEERCHUNK_ASSIGN_OR_RETURN(MountPoint point, MountPoint::ClaimAt(options.mount_path));
  PEERCHUNK_ASSIGN_OR_RETURN(const File folder, OpenOverlayFolder(options.overlay_folder));
  auto impl = std::make_unique<Impl>(std::move(build), std::move(options), std::move(point));
  const Template& files = *impl->build;
  if (files.Memfile() != nullptr) {
    PEERCHUNK_RETURN_IF_ERROR(impl->AddDevice(FileKind::kMemfile, *files.Memfile(), folder));
  }
  PEERCHUNK_RETURN_IF_ERROR(impl->AddDevice(FileKind::kRootfs, files.Rootfs(), folder));
  if (files.Snapfile() != nullptr) {
    impl->files.AddBytes(FileName(FileKind::kSnapfile), *files.Snapfile());
  }
  impl->files.AddBytes(FileName(FileKind::kMetadata), files.MetadataFile());

  PEERCHUNK_ASSIGN_OR_RETURN(
      impl->session,
      FuseSession::Mount(impl->files, impl->point.path(), "peerchunk:" + files.id().ToString(),
                         std::max<size_t>(1, impl->options.threads) + 1));
  PEERCHUNK_ASSIGN_OR_RETURN(const std::optional<MountEntry> mounted, impl->point.Mounted());
  if (mounted) impl->entry = *mounted;
  return std::unique_ptr<TemplateMount>(new TemplateMount(std::move(impl)));
}

TemplateMount::TemplateMount(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

TemplateMount::~TemplateMount() { impl_->Unmount(); }

const std::string& TemplateMount::path() const { return impl_->point.path(); }

bool TemplateMount::mounted() const { return impl_->StillMounted(); }

absl::StatusOr<std::vector<uint64_t>> TemplateMount::DirtyBlocks(FileKind device) const {
  const WritableDevice* const found = impl_->files.device(device);
  if (found == nullptr) {
    return absl::NotFoundError(absl::StrCat("build ", impl_->build->id().ToString(),
                                            " has no device ", AbslView(FileName(device))));
  }
  return found->DirtyBlocks();
}

absl::StatusOr<size_t> TemplateMount::ReadAt(FileKind device, uint64_t offset, absl::Span<char> out,
                                             const std::stop_token& cancellation) const {
  WritableDevice* const found = impl_->files.device(device);
  if (found == nullptr) {
    return absl::NotFoundError(absl::StrCat("build ", impl_->build->id().ToString(),
                                            " has no device ", AbslView(FileName(device))));
  }
  return found->ReadAt(offset, out, cancellation);
}

}  // namespace peerchunk
