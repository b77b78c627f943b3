#include "mount/fuse_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <utility>

#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

constexpr double kForEverSeconds = 24 * 3600;  // Names and sizes do not change.
constexpr fuse_ino_t kFirstFile = FUSE_ROOT_ID + 1;

FuseFiles& FilesOf(fuse_req_t request) {
  return *static_cast<FuseFiles*>(fuse_req_userdata(request));
}

int ErrnoOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kCancelled:
      return EINTR;
    case absl::StatusCode::kOutOfRange:
      return EFBIG;
    default:
      return EIO;
  }
}

// The cancellation of one request: asked for by the kernel when its caller is killed, or by the end
// of the mount. Goes before the request is answered.
class RequestStop {
 public:
  RequestStop(fuse_req_t request, const std::stop_token& unmounting)
      : request_(request), forward_(unmounting, [this] { stop_.request_stop(); }) {
    // Calls back at once when the interrupt has already come.
    fuse_req_interrupt_func(
        request_,
        [](fuse_req_t, void* stop) { static_cast<std::stop_source*>(stop)->request_stop(); },
        &stop_);
  }
  // Waits for a callback under way.
  ~RequestStop() { fuse_req_interrupt_func(request_, nullptr, nullptr); }
  RequestStop(const RequestStop&) = delete;
  RequestStop& operator=(const RequestStop&) = delete;

  std::stop_token token() const { return stop_.get_token(); }

 private:
  const fuse_req_t request_;
  std::stop_source stop_;
  std::stop_callback<std::function<void()>> forward_;
};

// A buffer for one answer, kept by its thread: as large as the largest request that it served.
absl::Span<char> ThreadBuffer(size_t size) {
  thread_local std::unique_ptr<char[]> buffer;
  thread_local size_t capacity = 0;
  if (capacity < size) {
    buffer.reset(new char[size]);
    capacity = size;
  }
  return {buffer.get(), size};
}

}  // namespace

const fuse_lowlevel_ops FuseFiles::kOperations = {
    .init = [](void* files,
               fuse_conn_info* connection) { static_cast<FuseFiles*>(files)->Init(*connection); },
    .lookup = [](fuse_req_t request, fuse_ino_t parent,
                 const char* name) { FilesOf(request).Lookup(request, parent, name); },
    .getattr = [](fuse_req_t request, fuse_ino_t inode,
                  fuse_file_info*) { FilesOf(request).GetAttributes(request, inode); },
    .setattr =
        [](fuse_req_t request, fuse_ino_t inode, struct stat* wanted, int which, fuse_file_info*) {
          FilesOf(request).SetAttributes(request, inode, *wanted, which);
        },
    .open = [](fuse_req_t request, fuse_ino_t inode,
               fuse_file_info* info) { FilesOf(request).Open(request, inode, info); },
    .read = [](fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
               fuse_file_info*) { FilesOf(request).Read(request, inode, size, offset); },
    .write =
        [](fuse_req_t request, fuse_ino_t inode, const char* data, size_t size, off_t offset,
           fuse_file_info*) {
          FilesOf(request).Write(request, inode, {data, size}, offset);
        },
    .readdir = [](fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
                  fuse_file_info*) { FilesOf(request).List(request, inode, size, offset); },
};

void FuseFiles::AddBytes(std::string_view name, std::string_view bytes) {
  files_.push_back({.name = std::string(name), .bytes = bytes, .device = nullptr});
}

void FuseFiles::AddDevice(std::unique_ptr<WritableDevice> device) {
  files_.push_back(
      {.name = std::string(FileName(device->kind())), .bytes = {}, .device = std::move(device)});
}

WritableDevice* FuseFiles::device(FileKind kind) const {
  for (const MountedFile& file : files_) {
    if (file.device != nullptr && file.device->kind() == kind) return file.device.get();
  }
  return nullptr;
}

const FuseFiles::MountedFile* FuseFiles::Find(fuse_ino_t inode) const {
  if (inode < kFirstFile || inode - kFirstFile >= files_.size()) return nullptr;
  return &files_[inode - kFirstFile];
}

struct stat FuseFiles::Attributes(fuse_ino_t inode) const {
  struct stat attributes {};
  attributes.st_ino = inode;
  attributes.st_uid = geteuid();
  attributes.st_gid = getegid();
  attributes.st_blksize = kPageBytes;
  attributes.st_mtim = attributes.st_ctim = attributes.st_atim = absl::ToTimespec(options_.changed);
  if (inode == FUSE_ROOT_ID) {
    attributes.st_mode = S_IFDIR | 0500;
    attributes.st_nlink = 2;
    return attributes;
  }
  const MountedFile& file = files_[inode - kFirstFile];
  attributes.st_mode = S_IFREG | (file.device != nullptr ? 0600 : 0400);
  attributes.st_nlink = 1;
  attributes.st_size = static_cast<off_t>(file.size());
  attributes.st_blocks = static_cast<blkcnt_t>(CeilDiv(file.size(), 512));
  return attributes;
}

void FuseFiles::Init(fuse_conn_info& connection) const {
  connection.max_readahead = std::min<unsigned>(connection.max_readahead, options_.readahead_bytes);
  // The bytes change only through this mount, so the kernel's pages stay right. And with
  // asynchronous direct reads a process cannot be killed while it waits for one.
  // One silent source must not use up what the kernel reads ahead at a time, for all files
  // together.
  connection.max_background = 256;
  connection.want &= ~static_cast<unsigned>(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_ASYNC_DIO);
}

void FuseFiles::Lookup(fuse_req_t request, fuse_ino_t parent, std::string_view name) const {
  if (parent == FUSE_ROOT_ID) {
    for (size_t i = 0; i < files_.size(); ++i) {
      if (files_[i].name != name) continue;
      fuse_entry_param entry{};
      entry.ino = kFirstFile + i;
      entry.attr = Attributes(entry.ino);
      entry.attr_timeout = entry.entry_timeout = kForEverSeconds;
      fuse_reply_entry(request, &entry);
      return;
    }
  }
  fuse_reply_err(request, ENOENT);
}

void FuseFiles::GetAttributes(fuse_req_t request, fuse_ino_t inode) const {
  if (inode != FUSE_ROOT_ID && Find(inode) == nullptr) {
    fuse_reply_err(request, ENOENT);
    return;
  }
  const struct stat attributes = Attributes(inode);
  fuse_reply_attr(request, &attributes, kForEverSeconds);
}

void FuseFiles::SetAttributes(fuse_req_t request, fuse_ino_t inode, const struct stat& wanted,
                              int which) const {
  // Some programs set the size that a file has already, or touch it: that changes nothing.
  const MountedFile* const file = Find(inode);
  const bool same_size = file != nullptr && static_cast<uint64_t>(wanted.st_size) == file->size();
  if ((which & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0 ||
      ((which & FUSE_SET_ATTR_SIZE) != 0 && !same_size)) {
    fuse_reply_err(request, EPERM);
    return;
  }
  GetAttributes(request, inode);
}

void FuseFiles::Open(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) const {
  const MountedFile* const file = Find(inode);
  if (file == nullptr) {
    fuse_reply_err(request, EISDIR);
    return;
  }
  const bool writes = (info->flags & O_ACCMODE) != O_RDONLY;
  if (writes && file->device == nullptr) {
    fuse_reply_err(request, EACCES);
    return;
  }
  if ((info->flags & O_TRUNC) != 0) {
    fuse_reply_err(request, EPERM);
    return;
  }
  info->keep_cache = 1;
  fuse_reply_open(request, info);
}

void FuseFiles::Read(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset) {
  const MountedFile* const file = Find(inode);
  if (file == nullptr) {
    fuse_reply_err(request, EISDIR);
    return;
  }
  const auto range = ByteRange::Clip(static_cast<uint64_t>(offset), size, file->size());
  if (!range || range->empty()) {
    fuse_reply_buf(request, nullptr, 0);
    return;
  }
  if (file->device == nullptr) {
    fuse_reply_buf(request, file->bytes.data() + range->offset, range->length);
    return;
  }
  lanes_.Run([this, request, device = file->device.get(), range = *range] {
    ReadDevice(request, *device, range.length, range.offset);
  });
}

void FuseFiles::ReadDevice(fuse_req_t request, WritableDevice& device, size_t size,
                           uint64_t offset) const {
  const absl::Span<char> buffer = ThreadBuffer(size);
  absl::StatusOr<size_t> got;
  {
    const RequestStop stop(request, options_.unmounting);
    got = device.ReadAt(offset, buffer, stop.token());
  }
  if (got.ok()) {
    fuse_reply_buf(request, buffer.data(), *got);
  } else {
    fuse_reply_err(request, ErrnoOf(got.status()));
  }
}

void FuseFiles::Write(fuse_req_t request, fuse_ino_t inode, std::string_view data, off_t offset) {
  const MountedFile* const file = Find(inode);
  if (file == nullptr || file->device == nullptr) {
    fuse_reply_err(request, EACCES);
    return;
  }
  // Copied: the task may be put off, and the session's buffer is used again.
  lanes_.Run([this, request, device = file->device.get(), data = std::string(data),
              offset = static_cast<uint64_t>(offset)] {
    absl::Status status;
    {
      const RequestStop stop(request, options_.unmounting);
      status = device->WriteAt(offset, data, stop.token());
    }
    if (status.ok()) {
      fuse_reply_write(request, data.size());
    } else {
      // The overlay's disk is full: a VMM can stop its guest for that and go on later.
      const bool full = absl::IsResourceExhausted(status);
      fuse_reply_err(request, full ? ENOSPC : ErrnoOf(status));
    }
  });
}

void FuseFiles::List(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset) const {
  if (inode != FUSE_ROOT_ID) {
    fuse_reply_err(request, ENOTDIR);
    return;
  }
  const absl::Span<char> buffer = ThreadBuffer(size);
  size_t used = 0;
  for (size_t i = static_cast<size_t>(offset); i < files_.size() + 2; ++i) {
    struct stat entry {};
    entry.st_ino = i < 2 ? FUSE_ROOT_ID : kFirstFile + (i - 2);
    entry.st_mode = i < 2 ? S_IFDIR : S_IFREG;
    const char* const name = i == 0 ? "." : i == 1 ? ".." : files_[i - 2].name.c_str();
    const size_t needed = fuse_add_direntry(request, buffer.data() + used, size - used, name,
                                            &entry, static_cast<off_t>(i + 1));
    if (needed > size - used) break;
    used += needed;
  }
  fuse_reply_buf(request, buffer.data(), used);
}

}  // namespace peerchunk
