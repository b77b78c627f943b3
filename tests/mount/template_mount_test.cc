#include "peerchunk/mount/template_mount.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "mount/mount_point.h"
#include "tests/mount/scripted_template.h"
#include "tests/support/resident_memory.h"
#include "tests/support/simulated_clock.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"
#include "tests/support/thread_turns.h"

namespace peerchunk {
namespace {

using test::CodeOf;
using test::ScriptedTemplate;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Why no file system can be mounted here; empty when one can.
std::string CannotMount() {
  const absl::Status device = CheckFuseDevice("/dev/fuse");
  if (!device.ok()) return std::string(device.message());
  const test::TempDir folder;
  if (mount("none", folder.path().c_str(), "tmpfs", 0, nullptr) != 0) {
    return "mounting needs root (CAP_SYS_ADMIN)";
  }
  umount2(folder.path().c_str(), 0);
  return "";
}

// Runs `work`, which makes system calls only, in a process of its own, and returns its pid; it
// exits with what `work` returns. A process must not map a file that it serves itself: the kernel
// holds its memory map while it waits for the answer. Nor may it keep the connection open.
template <typename Work>
pid_t StartChild(Work work) {
  const pid_t child = fork();
  if (child == 0) {
    close_range(3, ~0U, 0);
    _exit(work());
  }
  return child;
}

int ExitCode(pid_t child) {
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

// Maps `size` bytes of a file, calls work(char*), unmaps. Returns what `work` returns, 2 when it
// fails.
template <typename Work>
int WithMapping(const std::string& path, size_t size, int flags, Work work) {
  return ExitCode(StartChild([&] {
    const int file = open(path.c_str(), O_RDWR);
    void* const memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, file, 0);
    if (file < 0 || memory == MAP_FAILED) return 2;
    const int result = work(static_cast<char*>(memory));
    return munmap(memory, size) == 0 && close(file) == 0 ? result : 2;
  }));
}

// A process that reads one page, waiting for nothing but the file system.
pid_t StartReader(const std::string& path, uint64_t page) {
  const std::string input = "if=" + path;
  const std::string skip = "skip=" + std::to_string(page);
  const pid_t child = fork();
  if (child == 0) {
    execlp("dd", "dd", input.c_str(), "of=/dev/null", "bs=4096", "count=1", skip.c_str(),
           "iflag=direct", "status=none", nullptr);
    _exit(127);
  }
  return child;
}

class TemplateMountTest : public testing::Test {
 protected:
  void SetUp() override {
    static const std::string reason = CannotMount();
    if (!reason.empty()) GTEST_SKIP() << reason;
  }
  // A failed test must not leave a mount in a folder that is about to be removed.
  void TearDown() override { umount2(MountPath().c_str(), MNT_DETACH); }

  std::string MountPath() const { return folder_.PathOf("m"); }
  std::string PathOf(FileKind kind) const {
    return MountPath() + "/" + std::string(FileName(kind));
  }

  TemplateMountOptions Options() {
    return {.mount_path = MountPath(),
            .overlay_folder = folder_.PathOf("overlay"),
            .metrics = &metrics_};
  }
  std::unique_ptr<TemplateMount> Mount(const ScriptedTemplate& build) {
    return Mount(build, Options());
  }
  static std::unique_ptr<TemplateMount> Mount(const ScriptedTemplate& build,
                                              TemplateMountOptions options) {
    auto mounted = TemplateMount::Mount(build.loaded, std::move(options));
    EXPECT_OK(mounted);
    return mounted.ok() ? *std::move(mounted) : nullptr;
  }

  static std::string ReadAll(const std::string& path) {
    const auto file = File::Open(path, O_RDONLY);
    EXPECT_OK(file);
    if (!file.ok()) return "";
    std::string bytes(*file->Size(), '?');
    EXPECT_EQ(*file->ReadAt(0, absl::MakeSpan(bytes)), bytes.size());
    return bytes;
  }

  static std::set<std::string> Names(const std::string& path) {
    std::set<std::string> names;
    DIR* const folder = opendir(path.c_str());
    EXPECT_NE(folder, nullptr);
    while (const dirent* entry = readdir(folder)) names.insert(entry->d_name);
    closedir(folder);
    return names;
  }

  // A mount of ours whose process has gone, as the kernel shows it.
  void LeaveStaleMount() const {
    ASSERT_TRUE(mkdir(MountPath().c_str(), 0755) == 0 || errno == EEXIST);
    const File connection = *File::Open("/dev/fuse", O_RDWR);
    const std::string options =
        "fd=" + std::to_string(connection.fd()) + ",rootmode=40000,user_id=0,group_id=0";
    ASSERT_EQ(mount("peerchunk:gone", MountPath().c_str(), "fuse.peerchunk", MS_NOSUID | MS_NODEV,
                    options.c_str()),
              0)
        << strerror(errno);
  }

  test::TempDir folder_;
  Metrics metrics_;
};

TEST_F(TemplateMountTest, FilesAreThoseOfTheTemplate) {
  const ScriptedTemplate build;
  const auto mounted = Mount(build);
  ASSERT_NE(mounted, nullptr);
  EXPECT_EQ(mounted->path(), MountPath());
  EXPECT_TRUE(mounted->mounted());
  EXPECT_EQ(Names(MountPath()), (std::set<std::string>{".", "..", "memfile", "rootfs.ext4",
                                                       "snapfile", "metadata.json"}));
  EXPECT_TRUE(ReadAll(PathOf(FileKind::kMemfile)) == build.build.memfile);
  EXPECT_TRUE(ReadAll(PathOf(FileKind::kRootfs)) == build.build.rootfs);
  EXPECT_TRUE(ReadAll(PathOf(FileKind::kSnapfile)) == build.build.files.at(FileKind::kSnapfile));
  EXPECT_TRUE(ReadAll(PathOf(FileKind::kMetadata)) == build.build.files.at(FileKind::kMetadata));
  EXPECT_GE(metrics_.CounterValue("peerchunk_mount_read_bytes_total", {{"file", "memfile"}}),
            build.build.memfile.size());
}

// Beside guests that compute.
TEST_F(TemplateMountTest, ItsThreadsHaveShortTurns) {
  if (!test::TurnsCanDiffer()) GTEST_SKIP() << "this kernel gives all threads the same turns";
  const ScriptedTemplate build;
  const auto mounted = Mount(build);
  ASSERT_NE(mounted, nullptr);
  while (test::TurnsByThreadName()["mount"] != 100'000) sched_yield();  // As they begin.
}

TEST_F(TemplateMountTest, FilesystemOnlyBuildHasNoMemory) {
  const ScriptedTemplate build({.memfile_bytes = 0});
  const auto mounted = Mount(build);
  ASSERT_NE(mounted, nullptr);
  EXPECT_EQ(Names(MountPath()), (std::set<std::string>{".", "..", "rootfs.ext4", "metadata.json"}));
  EXPECT_TRUE(ReadAll(PathOf(FileKind::kRootfs)) == build.build.rootfs);
  EXPECT_EQ(CodeOf(mounted->DirtyBlocks(FileKind::kMemfile)), absl::StatusCode::kNotFound);
  char byte = 0;
  EXPECT_EQ(CodeOf(mounted->ReadAt(FileKind::kMemfile, 0, absl::MakeSpan(&byte, 1))),
            absl::StatusCode::kNotFound);
}

TEST_F(TemplateMountTest, NothingIsReadBeforeItIsTouched) {
  const ScriptedTemplate build;
  const auto mounted = Mount(build);
  ASSERT_NE(mounted, nullptr);
  struct stat found {};
  ASSERT_EQ(stat(PathOf(FileKind::kMemfile).c_str(), &found), 0);
  EXPECT_EQ(static_cast<size_t>(found.st_size), build.build.memfile.size());
  EXPECT_EQ(found.st_mode, mode_t{S_IFREG | 0600});
  const auto file = File::Open(PathOf(FileKind::kMemfile), O_RDWR);
  ASSERT_OK(file);
  EXPECT_EQ(build.memfile->reads(), 0u);
}

// The price of a page fault: what the kernel reads around it must not reach far into other chunks.
TEST_F(TemplateMountTest, TouchedPageReadsLittleMore) {
  const ScriptedTemplate build({.memfile_bytes = 16 * kMiB});
  const auto mounted = Mount(build);
  ASSERT_NE(mounted, nullptr);
  const char expected = build.build.memfile[8 * kMiB];
  EXPECT_EQ(WithMapping(PathOf(FileKind::kMemfile), 16 * kMiB, MAP_PRIVATE,
                        [=](const char* bytes) { return bytes[8 * kMiB] == expected ? 0 : 1; }),
            0);
  EXPECT_LE(metrics_.CounterValue("peerchunk_mount_read_bytes_total", {{"file", "memfile"}}),
            uint64_t{Options().readahead_bytes});
}

TEST_F(TemplateMountTest, WritesGoToTheOverlayAndAreReadBack) {
  const ScriptedTemplate build;
  const auto mounted = Mount(build);
  ASSERT_NE(mounted, nullptr);
  std::string expected = build.build.rootfs;
  {
    const auto file = File::Open(PathOf(FileKind::kRootfs), O_RDWR);
    ASSERT_OK(file);
    ASSERT_OK(file->WriteAt(3 * kPageBytes, std::string(kPageBytes, 'x')));
    ASSERT_OK(file->WriteAt(9 * kPageBytes + 17, "part"));
    ASSERT_OK(file->Sync());
  }
  expected.replace(3 * kPageBytes, kPageBytes, kPageBytes, 'x');
  expected.replace(9 * kPageBytes + 17, 4, "part");
  EXPECT_TRUE(ReadAll(PathOf(FileKind::kRootfs)) == expected);
  EXPECT_THAT(*mounted->DirtyBlocks(FileKind::kRootfs), ElementsAre(3, 9));
  EXPECT_THAT(*mounted->DirtyBlocks(FileKind::kMemfile), IsEmpty());
  std::string seen(expected.size(), '?');
  EXPECT_EQ(*mounted->ReadAt(FileKind::kRootfs, 0, absl::MakeSpan(seen)), expected.size());
  EXPECT_TRUE(seen == expected);
}

TEST_F(TemplateMountTest, OverlayEndsWithTheMount) {
  const ScriptedTemplate build;
  {
    const auto mounted = Mount(build);
    ASSERT_NE(mounted, nullptr);
    const auto file = File::Open(PathOf(FileKind::kMemfile), O_RDWR);
    ASSERT_OK(file->WriteAt(0, std::string(kPageBytes, 'x')));
    EXPECT_THAT(*folder_.folder().List(), ElementsAre("m", "overlay"));
  }
  EXPECT_THAT(*folder_.folder().List(), ElementsAre("m"));
  const auto again = Mount(build);
  ASSERT_NE(again, nullptr);
  EXPECT_TRUE(ReadAll(PathOf(FileKind::kMemfile)) == build.build.memfile);
}

// As a VMM with share=on does.
TEST_F(TemplateMountTest, SharedMappingWritesReachTheOverlay) {
  const ScriptedTemplate build;
  const auto mounted = Mount(build);
  ASSERT_NE(mounted, nullptr);
  EXPECT_EQ(WithMapping(PathOf(FileKind::kMemfile), build.build.memfile.size(), MAP_SHARED,
                        [](char* bytes) {
                          bytes[5 * kPageBytes + 1] = 'y';
                          return 0;
                        }),
            0);
  EXPECT_THAT(*mounted->DirtyBlocks(FileKind::kMemfile), ElementsAre(5));
  std::string expected = build.build.memfile;
  expected[5 * kPageBytes + 1] = 'y';
  EXPECT_TRUE(ReadAll(PathOf(FileKind::kMemfile)) == expected);
}

// As a VMM with share=off does: the file opens for writing, and its writes stay in its own pages.
TEST_F(TemplateMountTest, PrivateMappingWritesStayPrivate) {
  const ScriptedTemplate build;
  const auto mounted = Mount(build);
  ASSERT_NE(mounted, nullptr);
  const std::string& before = build.build.memfile;
  EXPECT_EQ(WithMapping(PathOf(FileKind::kMemfile), before.size(), MAP_PRIVATE,
                        [&](char* bytes) {
                          for (size_t i = 0; i < before.size(); i += kPageBytes) bytes[i] ^= 1;
                          for (size_t i = 0; i < before.size(); i += kPageBytes) {
                            if (bytes[i] != static_cast<char>(before[i] ^ 1)) return 1;
                          }
                          return 0;
                        }),
            0);
  EXPECT_TRUE(ReadAll(PathOf(FileKind::kMemfile)) == before);
  EXPECT_THAT(*mounted->DirtyBlocks(FileKind::kMemfile), IsEmpty());
}

TEST_F(TemplateMountTest, SizesModesAndNamesCannotBeChanged) {
  const ScriptedTemplate build;
  const auto mounted = Mount(build);
  ASSERT_NE(mounted, nullptr);
  const std::string rootfs = PathOf(FileKind::kRootfs);
  const auto size = static_cast<off_t>(build.build.rootfs.size());
  EXPECT_EQ(truncate(rootfs.c_str(), size - 1), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(truncate(rootfs.c_str(), size), 0) << strerror(errno);
  EXPECT_EQ(open(rootfs.c_str(), O_RDWR | O_TRUNC), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(chmod(rootfs.c_str(), 0777), -1);
  EXPECT_EQ(unlink(rootfs.c_str()), -1);
  EXPECT_EQ(open(PathOf(FileKind::kSnapfile).c_str(), O_RDWR), -1);
  EXPECT_EQ(errno, EACCES);
  EXPECT_EQ(open((MountPath() + "/other").c_str(), O_RDONLY), -1);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_EQ(open((MountPath() + "/other").c_str(), O_RDWR | O_CREAT, 0600), -1);
  const auto file = File::Open(rootfs, O_RDWR);
  EXPECT_EQ(pwrite(file->fd(), "x", 1, size), -1);
  EXPECT_EQ(errno, EFBIG);
  EXPECT_TRUE(ReadAll(rootfs) == build.build.rootfs);
}

TEST_F(TemplateMountTest, SourceThatComesBackIsNoError) {
  test::SimulatedClock clock;
  clock.AdvanceOnWait();
  const ScriptedTemplate build;
  build.memfile->OnRead([&](ByteRange, const ReadOptions&) {
    return build.memfile->reads() <= 5 ? absl::UnavailableError("down") : absl::OkStatus();
  });
  TemplateMountOptions options = Options();
  options.clock = &clock;
  const auto mounted = Mount(build, options);
  ASSERT_NE(mounted, nullptr);
  EXPECT_TRUE(ReadAll(PathOf(FileKind::kMemfile)) == build.build.memfile);
}

TEST_F(TemplateMountTest, SourceThatStaysAwayIsAnErrorAndNotForEver) {
  test::SimulatedClock clock;
  clock.AdvanceOnWait();
  const ScriptedTemplate build;
  build.rootfs->OnRead([](ByteRange, const ReadOptions&) { return absl::DataLossError("bad"); });
  TemplateMountOptions options = Options();
  options.clock = &clock;
  const auto mounted = Mount(build, options);
  ASSERT_NE(mounted, nullptr);
  const auto file = File::Open(PathOf(FileKind::kRootfs), O_RDWR);
  ASSERT_OK(file);
  std::string bytes(build.build.rootfs.size(), '?');
  EXPECT_EQ(pread(file->fd(), bytes.data(), bytes.size(), 0), -1);
  EXPECT_EQ(errno, EIO);
  build.rootfs->OnRead(nullptr);
  EXPECT_TRUE(ReadAll(PathOf(FileKind::kRootfs)) == build.build.rootfs);
}

// Every lane waits for a silent source, and more reads wait for a lane; then the readers are
// killed: their reads must end, or the processes could not. (Direct reads, whose end the process
// waits for; a read through the page cache is left behind by it.)
TEST_F(TemplateMountTest, KilledReadersEndThoughTheSourceIsSilent) {
  const ScriptedTemplate build({.memfile_bytes = 16 * kMiB});
  build.memfile->OnRead(test::StallUntilCancelled);
  TemplateMountOptions options = Options();
  options.threads = 2;
  const auto mounted = Mount(build, options);
  ASSERT_NE(mounted, nullptr);
  const std::string path = PathOf(FileKind::kMemfile);
  const auto header = Header::Decode(build.build.files.at(FileKind::kMemfileHeader));
  std::vector<uint64_t> pages;
  for (const Mapping& mapping : header->mappings()) {
    if (!mapping.is_zero()) pages.push_back(mapping.offset);
  }
  std::vector<pid_t> readers;
  for (size_t i = 0; i < 5; ++i) readers.push_back(StartReader(path, pages.at(i * 3) / kPageBytes));
  build.memfile->AwaitReads(2);
  for (const pid_t reader : readers) kill(reader, SIGKILL);
  for (const pid_t reader : readers) EXPECT_EQ(ExitCode(reader), -SIGKILL);
  build.memfile->OnRead(nullptr);
  EXPECT_TRUE(ReadAll(path) == build.build.memfile);
}

// With every lane waiting, names and sizes are still answered.
TEST_F(TemplateMountTest, SilentSourceDoesNotStopOtherFiles) {
  const ScriptedTemplate build;
  build.memfile->OnRead(test::StallUntilCancelled);
  TemplateMountOptions options = Options();
  options.threads = 1;
  auto mounted = Mount(build, options);
  ASSERT_NE(mounted, nullptr);
  std::thread reader([this] {
    const auto file = File::Open(PathOf(FileKind::kMemfile), O_RDONLY);
    std::string bytes(kMiB, '?');
    EXPECT_FALSE(file->ReadAt(0, absl::MakeSpan(bytes)).ok());
  });
  build.memfile->AwaitReads(1);
  EXPECT_TRUE(ReadAll(PathOf(FileKind::kSnapfile)) == build.build.files.at(FileKind::kSnapfile));
  mounted = nullptr;  // Ends the read that waits, although its file is open.
  reader.join();
}

TEST_F(TemplateMountTest, EndsWhileAFileIsOpen) {
  const ScriptedTemplate build;
  auto mounted = Mount(build);
  ASSERT_NE(mounted, nullptr);
  const auto file = File::Open(PathOf(FileKind::kMemfile), O_RDWR);
  ASSERT_OK(file);
  mounted = nullptr;
  char byte = 0;
  EXPECT_EQ(pread(file->fd(), &byte, 1, 0), -1);
  EXPECT_THAT(errno, testing::AnyOf(ENOTCONN, ECONNABORTED, EIO));
  EXPECT_EQ(Names(MountPath()), (std::set<std::string>{".", ".."}));
  EXPECT_NE(Mount(build), nullptr);  // The path is free again.
}

TEST_F(TemplateMountTest, PathInUseIsRefusedAndTheFirstMountStays) {
  const ScriptedTemplate build;
  const auto mounted = Mount(build);
  ASSERT_NE(mounted, nullptr);
  TemplateMountOptions options = Options();
  options.overlay_folder = folder_.PathOf("overlay2");
  const auto second = TemplateMount::Mount(build.loaded, options);
  EXPECT_EQ(CodeOf(second), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr("peerchunk:" + build.build.id.ToString()));
  EXPECT_TRUE(ReadAll(PathOf(FileKind::kRootfs)) == build.build.rootfs);
}

TEST_F(TemplateMountTest, StaleMountIsReplaced) {
  LeaveStaleMount();
  struct stat found {};
  ASSERT_EQ(stat(MountPath().c_str(), &found), -1);
  ASSERT_EQ(errno, ENOTCONN);
  const ScriptedTemplate build;
  const auto mounted = Mount(build);
  ASSERT_NE(mounted, nullptr);
  EXPECT_TRUE(ReadAll(PathOf(FileKind::kRootfs)) == build.build.rootfs);
}

TEST_F(TemplateMountTest, StaleMountsOnTopOfEachOtherAndInUseAreReplaced) {
  LeaveStaleMount();
  const auto held = File::Open(MountPath(), O_PATH);
  ASSERT_OK(held);
  LeaveStaleMount();
  const ScriptedTemplate build;
  const auto mounted = Mount(build);
  ASSERT_NE(mounted, nullptr);
  EXPECT_TRUE(ReadAll(PathOf(FileKind::kRootfs)) == build.build.rootfs);
}

TEST_F(TemplateMountTest, UnmountedByOthersIsNoticedAndLeftAlone) {
  const ScriptedTemplate build;
  auto mounted = Mount(build);
  ASSERT_NE(mounted, nullptr);
  ASSERT_EQ(umount2(MountPath().c_str(), 0), 0);
  EXPECT_FALSE(mounted->mounted());
  ASSERT_EQ(mount("other", MountPath().c_str(), "tmpfs", 0, nullptr), 0);
  mounted = nullptr;
  const auto still = MountPoint::ClaimAt(MountPath());
  EXPECT_EQ(CodeOf(still), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(umount2(MountPath().c_str(), 0), 0);
}

TEST_F(TemplateMountTest, MountThatFailsLeavesNothingBehind) {
  const ScriptedTemplate build;
  TemplateMountOptions options = Options();
  options.overlay_folder = folder_.Write("overlay", "a file");
  EXPECT_FALSE(TemplateMount::Mount(build.loaded, options).ok());
  options.overlay_folder = "";
  EXPECT_EQ(CodeOf(TemplateMount::Mount(build.loaded, options)),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Names(MountPath()), (std::set<std::string>{".", ".."}));
}

// With ever more descriptors to be had, a mount fails in ever later steps, until it succeeds.
TEST_F(TemplateMountTest, MountThatFailsAnywhereLeavesNoOverlayFolder) {
  if (test::kUnderAsan) GTEST_SKIP() << "the sanitizers open descriptors of their own";
  const ScriptedTemplate build;
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const auto first_free = static_cast<rlim_t>(File::Open("/", O_PATH)->fd());
  int failed = 0;
  for (rlim_t free = 0;; ++free) {
    const rlimit few = {.rlim_cur = first_free + free, .rlim_max = before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
    const auto mounted = TemplateMount::Mount(build.loaded, Options());
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    if (mounted.ok()) break;
    ++failed;
    ASSERT_FALSE(*folder_.folder().Contains("overlay")) << free << ": " << mounted.status();
  }
  EXPECT_GT(failed, 3);
}

TEST_F(TemplateMountTest, ManyReadersSeeTheSameBytes) {
  const ScriptedTemplate build({.memfile_bytes = 8 * kMiB});
  const auto mounted = Mount(build);
  ASSERT_NE(mounted, nullptr);
  std::vector<std::thread> readers;
  for (int i = 0; i < 6; ++i) {
    readers.emplace_back(
        [&] { EXPECT_TRUE(ReadAll(PathOf(FileKind::kMemfile)) == build.build.memfile); });
  }
  for (std::thread& reader : readers) reader.join();
}

}  // namespace
}  // namespace peerchunk
