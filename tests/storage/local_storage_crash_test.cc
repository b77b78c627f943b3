#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/range.h"
#include "peerchunk/storage/local_storage.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"

// A process is killed in front of each of its system calls in turn, and nothing else can change a
// folder: so these tests pass through every state that a crash can leave.

namespace peerchunk {
namespace {

using test::CodeOf;
using test::SampleBytes;
using test::TempDir;

enum class Ending { kKilled, kDone, kCannotTrace };

// Runs `body` in a child that is killed in front of its system call number `killed_at`.
Ending RunAndKill(const std::function<void()>& prepare, const std::function<void()>& body,
                  int killed_at) {
  const pid_t child = fork();
  if (child == 0) {
    prepare();
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(2);
    raise(SIGSTOP);
    body();
    _exit(0);
  }
  int state = 0;
  waitpid(child, &state, 0);
  if (WIFEXITED(state)) return Ending::kCannotTrace;
  ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
  bool inside = false;
  int calls = 0;
  while (true) {
    ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);
    waitpid(child, &state, 0);
    if (WIFEXITED(state)) {
      EXPECT_EQ(WEXITSTATUS(state), 0) << "the call failed by itself";
      return Ending::kDone;
    }
    if (!WIFSTOPPED(state) || WSTOPSIG(state) != (SIGTRAP | 0x80)) continue;
    inside = !inside;
    if (inside && ++calls == killed_at) {
      kill(child, SIGKILL);
      waitpid(child, &state, 0);
      return Ending::kKilled;
    }
  }
}

class LocalStorageCrashTest : public testing::Test {
 protected:
  static constexpr char kPath[] = "build/memfile";

  void SetUp() override {
    if (RunAndKill([] {}, [] { getppid(); }, 1) == Ending::kCannotTrace) {
      GTEST_SKIP() << "this process may not trace its children";
    }
  }

  static std::unique_ptr<StorageProvider> Open(const TempDir& dir) {
    LocalStorageOptions options;
    options.folder = dir.path();
    absl::StatusOr<std::unique_ptr<StorageProvider>> opened = LocalStorageProvider::Open(options);
    if (!opened.ok()) std::abort();
    return *std::move(opened);
  }

  static WriteOptions Labelled(std::string_view label) {
    WriteOptions options;
    options.metadata = {{"label", std::string(label)}};
    return options;
  }

  // The object's label, after all that is known of it was found to belong together; nothing when
  // there is no object.
  static std::optional<std::string> CheckedLabel(StorageProvider& storage) {
    const std::unique_ptr<Blob> blob = *storage.OpenBlob(kPath);
    const absl::StatusOr<ObjectStat> stat = blob->Stat({});
    if (absl::IsNotFound(stat.status())) return std::nullopt;
    EXPECT_OK(stat);
    if (!stat.ok()) return std::nullopt;
    EXPECT_TRUE(stat->crc32c.has_value()) << "an object appeared before its sidecar";
    StringSink sink(kGiB);
    EXPECT_OK(blob->WriteTo(sink, {}));
    EXPECT_EQ(sink.bytes().size(), stat->size);
    EXPECT_EQ(Crc32c(sink.bytes()), stat->crc32c);
    const auto label = stat->metadata.find("label");
    if (label == stat->metadata.end()) {
      ADD_FAILURE() << "the object lost its metadata";
      return "";
    }
    EXPECT_TRUE(sink.bytes().starts_with(label->second)) << "bytes and metadata do not match";
    return label->second;
  }

  static std::vector<std::string> List(const TempDir& dir, const std::string& folder) {
    const absl::StatusOr<File> opened = dir.folder().OpenAt(folder, O_RDONLY | O_DIRECTORY);
    return opened.ok() ? *opened->List() : std::vector<std::string>();
  }

  // Kills `change` at every point. `before` and `after` are the labels it leads from and to.
  void KillEverywhere(const std::function<void(StorageProvider&)>& start,
                      const std::function<void(StorageProvider&)>& change,
                      const std::optional<std::string>& before,
                      const std::optional<std::string>& after) {
    int points = 0;
    bool seen_before = false;
    bool seen_after = false;
    for (Ending ending = Ending::kKilled; ending == Ending::kKilled;) {
      SCOPED_TRACE("killed in front of system call " + std::to_string(++points));
      const TempDir dir(TempDir::Place::kMemory);  // A process dies here, not the machine.
      start(*Open(dir));
      std::unique_ptr<StorageProvider> storage;
      ending = RunAndKill([&] { storage = Open(dir); }, [&] { change(*storage); }, points);

      const std::unique_ptr<StorageProvider> restarted = Open(dir);
      EXPECT_TRUE(List(dir, ".peerchunk/tmp").empty());
      const std::optional<std::string> label = CheckedLabel(*restarted);
      EXPECT_TRUE(label == before || label == after);
      seen_before |= label == before;
      seen_after |= label == after;

      // What is left over neither disturbs the next write nor outlives it.
      ASSERT_OK((*restarted->OpenBlob(kPath))->Put("last", Labelled("last")));
      EXPECT_EQ(CheckedLabel(*restarted), "last");
      EXPECT_EQ(List(dir, std::string(".peerchunk/objects/") + kPath).size(), 1u);
    }
    EXPECT_TRUE(seen_before);
    EXPECT_TRUE(seen_after);
    EXPECT_GT(points, 10);
  }

  static void Put(StorageProvider& storage, const std::string& label, WriteOptions options) {
    options.metadata = {{"label", label}};
    const std::string bytes = label + SampleBytes(2 * kMiB, 1);
    if (!(*storage.OpenBlob(kPath))->Put(bytes, options).ok()) _exit(3);
  }
};

TEST_F(LocalStorageCrashTest, NewObjectIsThereWholeOrNotAtAll) {
  KillEverywhere([](StorageProvider&) {}, [](StorageProvider& storage) { Put(storage, "new", {}); },
                 std::nullopt, "new");
}

TEST_F(LocalStorageCrashTest, NewObjectIfAbsentIsThereWholeOrNotAtAll) {
  WriteOptions options;
  options.if_absent = true;
  KillEverywhere([](StorageProvider&) {},
                 [&](StorageProvider& storage) { Put(storage, "new", options); }, std::nullopt,
                 "new");
}

TEST_F(LocalStorageCrashTest, ReplacedObjectIsTheOldOrTheNew) {
  KillEverywhere([](StorageProvider& storage) { Put(storage, "old", {}); },
                 [](StorageProvider& storage) { Put(storage, "new", {}); }, "old", "new");
}

TEST_F(LocalStorageCrashTest, StoredFileReplacesByVersionOrNotAtAll) {
  const TempDir files;
  const std::string file = files.Write("file", "new" + SampleBytes(3 * kMiB, 2));
  KillEverywhere([](StorageProvider& storage) { Put(storage, "old", {}); },
                 [&](StorageProvider& storage) {
                   WriteOptions options = Labelled("new");
                   options.if_version = (*storage.OpenBlob(kPath))->Stat({})->version;
                   const auto object = *storage.OpenSeekable(kPath);
                   if (!object->StoreFile(file, options).ok()) _exit(3);
                 },
                 "old", "new");
}

TEST_F(LocalStorageCrashTest, DeletedObjectIsThereWholeOrNotAtAll) {
  KillEverywhere([](StorageProvider& storage) { Put(storage, "old", {}); },
                 [](StorageProvider& storage) {
                   if (!storage.DeleteObjectsWithPrefix("build/", {}).ok()) _exit(3);
                 },
                 "old", std::nullopt);
}

}  // namespace
}  // namespace peerchunk
