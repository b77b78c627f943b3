#include "mount/fuse_session.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <cerrno>

#include "base/short_turns.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

absl::Status Watch(const File& epoll, int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  if (epoll_ctl(epoll.fd(), EPOLL_CTL_ADD, fd, &event) != 0) return ErrnoStatus(errno, "epoll_ctl");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<FuseSession>> FuseSession::Mount(FuseFiles& files,
                                                                const std::string& path,
                                                                const std::string& source,
                                                                size_t threads) {
  auto made = std::unique_ptr<FuseSession>(new FuseSession());
  const std::string options = "fsname=" + source + ",subtype=peerchunk,default_permissions";
  fuse_args args = FUSE_ARGS_INIT(0, nullptr);
  fuse_opt_add_arg(&args, "peerchunk");
  fuse_opt_add_arg(&args, "-o");
  fuse_opt_add_arg(&args, options.c_str());
  made->session_.reset(
      fuse_session_new(&args, &FuseFiles::kOperations, sizeof(FuseFiles::kOperations), &files));
  fuse_opt_free_args(&args);
  if (made->session_ == nullptr) return absl::InternalError("libfuse made no session");

  made->stop_ = File(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  made->ready_ = File(epoll_create1(EPOLL_CLOEXEC));
  if (!made->stop_.is_open() || !made->ready_.is_open()) return ErrnoStatus(errno, "eventfd");

  errno = 0;
  if (fuse_session_mount(made->session_.get(), path.c_str()) != 0) {
    const int error = errno;
    if (error == EPERM || error == EACCES) {
      return absl::FailedPreconditionError(
          absl::StrCat("mount at ", path,
                       ": not permitted. Mounting needs root (in a container: --cap-add "
                       "SYS_ADMIN), or fusermount3 (package fuse3)"));
    }
    return ErrnoStatus(error, "mount at " + path);
  }
  const int connection = fuse_session_fd(made->session_.get());
  // A thread may be woken for a request that another one has taken.
  if (fcntl(connection, F_SETFL, fcntl(connection, F_GETFL) | O_NONBLOCK) != 0) {
    return ErrnoStatus(errno, "fcntl");
  }
  PEERCHUNK_RETURN_IF_ERROR(Watch(made->ready_, connection));
  PEERCHUNK_RETURN_IF_ERROR(Watch(made->ready_, made->stop_.fd()));

  // The program's signals are not for these threads.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (size_t i = 0; i < threads; ++i) {
    made->threads_.emplace_back([session = made.get()] { session->Serve(); });
    pthread_setname_np(made->threads_.back().native_handle(),
                       absl::StrCat("mount-", i).substr(0, 15).c_str());
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return made;
}

void FuseSession::Serve() {
  PreferShortTurns();
  fuse_buf buffer{};
  while (true) {
    epoll_event event{};
    const int ready = epoll_wait(ready_.fd(), &event, 1, -1);
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0 || event.data.fd == stop_.fd()) break;
    const int got = fuse_session_receive_buf(session_.get(), &buffer);
    if (got == -EAGAIN || got == -EINTR) continue;
    if (got <= 0) break;  // Unmounted.
    fuse_session_process_buf(session_.get(), &buffer);
  }
  free(buffer.mem);
}

FuseSession::~FuseSession() {
  if (stop_.is_open()) eventfd_write(stop_.fd(), 1);
  for (std::thread& thread : threads_) thread.join();
  if (session_ != nullptr) fuse_session_unmount(session_.get());
}

}  // namespace peerchunk
