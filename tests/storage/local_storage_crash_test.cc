#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
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
#include "tests/support/traced_child.h"

// A process is stopped in front of each of its system calls in turn, and nothing else can change a
// folder: so these tests pass through every state that a crash can leave or another process can
// see.

namespace peerchunk {
namespace {

using test::CodeOf;
using test::SampleBytes;
using test::TempDir;
using test::TracedChild;

class LocalStorageCrashTest : public testing::Test {
 protected:
  static constexpr char kPath[] = "build/memfile";

  void SetUp() override {
    if (!TracedChild::Possible()) GTEST_SKIP() << "this process may not trace its children";
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
                      const std::function<bool(StorageProvider&)>& change,
                      const std::optional<std::string>& before,
                      const std::optional<std::string>& after) {
    int points = 0;
    bool seen_before = false;
    bool seen_after = false;
    for (bool killed = true; killed;) {
      SCOPED_TRACE("killed in front of system call " + std::to_string(++points));
      const TempDir dir(TempDir::Place::kMemory);  // A process dies here, not the machine.
      start(*Open(dir));
      std::unique_ptr<StorageProvider> storage;
      const auto kill_it = [] { return false; };
      const TracedChild::Result result = TracedChild::Run(
          [&] { storage = Open(dir); }, [&] { return change(*storage) ? 0 : 1; }, points, kill_it);
      killed = result.reached;
      if (!killed) {
        EXPECT_EQ(result.exit_code, 0) << "the call failed by itself";
      }

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

  static bool Put(StorageProvider& storage, const std::string& label, WriteOptions options) {
    options.metadata = {{"label", label}};
    const std::string bytes = label + SampleBytes(2 * kMiB, 1);
    return (*storage.OpenBlob(kPath))->Put(bytes, options).ok();
  }
};

TEST_F(LocalStorageCrashTest, NewObjectIsThereWholeOrNotAtAll) {
  KillEverywhere([](StorageProvider&) {},
                 [](StorageProvider& storage) { return Put(storage, "new", {}); }, std::nullopt,
                 "new");
}

TEST_F(LocalStorageCrashTest, NewObjectIfAbsentIsThereWholeOrNotAtAll) {
  WriteOptions options;
  options.if_absent = true;
  KillEverywhere([](StorageProvider&) {},
                 [&](StorageProvider& storage) { return Put(storage, "new", options); },
                 std::nullopt, "new");
}

TEST_F(LocalStorageCrashTest, ReplacedObjectIsTheOldOrTheNew) {
  KillEverywhere([](StorageProvider& storage) { Put(storage, "old", {}); },
                 [](StorageProvider& storage) { return Put(storage, "new", {}); }, "old", "new");
}

TEST_F(LocalStorageCrashTest, StoredFileReplacesByVersionOrNotAtAll) {
  const TempDir files;
  const std::string file = files.Write("file", "new" + SampleBytes(3 * kMiB, 2));
  KillEverywhere([](StorageProvider& storage) { Put(storage, "old", {}); },
                 [&](StorageProvider& storage) {
                   WriteOptions options = Labelled("new");
                   options.if_version = (*storage.OpenBlob(kPath))->Stat({})->version;
                   const auto object = *storage.OpenSeekable(kPath);
                   return object->StoreFile(file, options).ok();
                 },
                 "old", "new");
}

TEST_F(LocalStorageCrashTest, DeletedObjectIsThereWholeOrNotAtAll) {
  KillEverywhere(
      [](StorageProvider& storage) { Put(storage, "old", {}); },
      [](StorageProvider& storage) { return storage.DeleteObjectsWithPrefix("build/", {}).ok(); },
      "old", std::nullopt);
}

TEST_F(LocalStorageCrashTest, WhatIsLeftOfADeletedBuildNeverLooksComplete) {
  const std::vector<std::string> names = {"memfile", "memfile.header", "metadata.json", "snapfile"};
  bool cut_short = false;
  bool reached = true;
  for (int point = 1; reached; ++point) {
    SCOPED_TRACE("killed in front of system call " + std::to_string(point));
    const TempDir dir(TempDir::Place::kMemory);
    std::unique_ptr<StorageProvider> storage = Open(dir);
    for (const std::string& name : names) {
      ASSERT_OK((*storage->OpenBlob("build/" + name))->Put("bytes", {}));
    }
    const TracedChild::Result result = TracedChild::Run(
        [] {}, [&] { return storage->DeleteObjectsWithPrefix("build/", {}).ok() ? 0 : 1; }, point,
        [] { return false; });
    reached = result.reached;
    const auto left =
        static_cast<size_t>(std::count_if(names.begin(), names.end(), [&](const std::string& name) {
          return *(*storage->OpenBlob("build/" + name))->Exists({});
        }));
    if (*(*storage->OpenBlob("build/metadata.json"))->Exists({})) {
      EXPECT_EQ(left, names.size());
    }
    cut_short |= left > 0 && left < names.size();
  }
  EXPECT_TRUE(cut_short);
}

// What another process does in the middle of a call, at every point of the call.
TEST_F(LocalStorageCrashTest, ReaderSeesOneVersionWithItsChecksumWheneverItIsReplaced) {
  // Returns which expectation was broken.
  const auto read = [](StorageProvider& storage) {
    const std::unique_ptr<Blob> blob = *storage.OpenBlob(kPath);
    const absl::StatusOr<ObjectStat> stat = blob->Stat({});
    if (!stat.ok()) return 1;
    if (!stat->crc32c || stat->metadata.size() != 1) return 2;
    StringSink sink(kGiB);
    if (!blob->WriteTo(sink, {}).ok()) return 3;
    ReadOptions pinned;
    pinned.version = stat->version;
    StringSink pinned_sink(kGiB);
    const absl::Status pinned_read = blob->WriteTo(pinned_sink, pinned);
    if (absl::IsAborted(pinned_read)) return 0;
    if (!pinned_read.ok()) return 4;
    if (Crc32c(pinned_sink.bytes()) != *stat->crc32c) return 5;
    return pinned_sink.bytes().starts_with(stat->metadata.begin()->second) ? 0 : 6;
  };
  bool reached = true;
  for (int point = 1; reached; ++point) {
    SCOPED_TRACE("replaced in front of system call " + std::to_string(point));
    const TempDir dir(TempDir::Place::kMemory);
    const std::unique_ptr<StorageProvider> storage = Open(dir);
    ASSERT_TRUE(Put(*storage, "old", {}));
    const TracedChild::Result result = TracedChild::Run(
        [] {}, [&] { return read(*storage); }, point, [&] { return Put(*storage, "new", {}); });
    EXPECT_EQ(result.exit_code, 0);
    reached = result.reached;
  }
}

TEST_F(LocalStorageCrashTest, WriterSucceedsWheneverADeleteRemovesItsEmptyFolders) {
  bool reached = true;
  for (int point = 1; reached; ++point) {
    SCOPED_TRACE("removed in front of system call " + std::to_string(point));
    const TempDir dir(TempDir::Place::kMemory);
    const std::unique_ptr<StorageProvider> storage = Open(dir);
    const TracedChild::Result result = TracedChild::Run(
        [] {}, [&] { return Put(*storage, "new", {}) ? 0 : 1; }, point,
        [&] {
          for (const char* folder :
               {".peerchunk/objects/build/memfile", ".peerchunk/objects/build", "build"}) {
            unlinkat(dir.folder().fd(), folder, AT_REMOVEDIR);  // Fails when not empty.
          }
          return true;
        });
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_EQ(CheckedLabel(*storage), "new");
    reached = result.reached;
  }
}

}  // namespace
}  // namespace peerchunk
