#include "tests/support/temp_dir.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

#include "peerchunk/base/status.h"

namespace peerchunk::test {
namespace {

// A test cannot go on without its folder.
void Require(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "TempDir: %s\n", status.ToString().c_str());
  std::abort();
}

template <typename T>
T Require(absl::StatusOr<T> result) {
  Require(result.status());
  return *std::move(result);
}

}  // namespace

TempDir::TempDir(Place place) {
  const char* base = std::getenv("TMPDIR");
  if (base == nullptr) base = "/tmp";
  if (place == Place::kMemory && access("/dev/shm", W_OK) == 0) base = "/dev/shm";
  path_ = std::string(base) + "/peerchunk-test-XXXXXX";
  if (mkdtemp(path_.data()) == nullptr) Require(ErrnoStatus(errno, path_));
  folder_ = Require(File::Open(path_, O_RDONLY | O_DIRECTORY));
}

TempDir::~TempDir() {
  const size_t slash = path_.rfind('/');
  const absl::StatusOr<File> parent = File::Open(path_.substr(0, slash), O_RDONLY | O_DIRECTORY);
  if (parent.ok()) parent->RemoveTree(path_.substr(slash + 1)).IgnoreError();
}

std::string TempDir::PathOf(std::string_view name) const { return path_ + "/" + std::string(name); }

std::string TempDir::Write(std::string_view name, std::string_view data) const {
  const size_t slash = name.rfind('/');
  if (slash != std::string_view::npos) Require(folder_.MakeFolder(name.substr(0, slash)));
  const File file = Require(folder_.OpenAt(name, O_WRONLY | O_CREAT | O_TRUNC));
  Require(file.WriteAt(0, data));
  return PathOf(name);
}

std::string TempDir::Read(std::string_view name) const {
  return Require(folder_.ReadSmallFile(name, uint64_t{1} << 32));
}

}  // namespace peerchunk::test
