#include "peerchunk/template/build_registry.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include <absl/synchronization/notification.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "peerchunk/header/header.h"
#include "tests/support/simulated_clock.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_build.h"

namespace peerchunk::test {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class BuildRegistryTest : public testing::Test {
 protected:
  BuildRegistryTest() { Open(); }

  void Open() {
    registry_ = nullptr;
    auto opened = TryOpen();
    ASSERT_OK(opened);
    registry_ = *std::move(opened);
  }
  absl::StatusOr<std::unique_ptr<BuildRegistry>> TryOpen() {
    return BuildRegistry::Open(
        {.folder = dir_.PathOf("builds"), .clock = &clock_, .executor = &pool_});
  }
  TestBuild Make(uint32_t seed = 1, bool filesystem_only = false) {
    return MakeTestBuild({.memfile_bytes = filesystem_only ? 0 : 2 * kMiB + 5 * kPageBytes,
                          .rootfs_bytes = kMiB,
                          .seed = seed});
  }
  SnapshotFiles Write(const TestBuild& build) {
    return build.WriteTo(dir_, "in-" + build.id.ToString());
  }
  absl::StatusOr<std::shared_ptr<const RecordedBuild>> Add(const TestBuild& build,
                                                           bool sync = false) {
    return registry_->Add(build.id, Write(build), sync);
  }
  std::string Inside(const BuildId& id, std::string_view name) {
    return "builds/" + id.ToString() + "/" + std::string(name);
  }
  void ExpectServed(const TestBuild& build) {
    for (const auto& [kind, bytes] : build.files) ExpectFile({build.id, kind}, bytes);
  }
  void ExpectFile(const BuildFileId& id, const std::string& bytes) {
    const auto file = registry_->OpenFile(id);
    ASSERT_OK(file) << id.ObjectPath();
    std::string got(bytes.size() + 1, '?');
    const auto length = (*file)->ReadAt(0, absl::MakeSpan(got), {});
    ASSERT_OK(length);
    got.resize(*length);
    EXPECT_TRUE(got == bytes) << id.ObjectPath();
  }
  BuildState StateOf(const BuildId& id) {
    const auto build = registry_->Find(id);
    return build == nullptr ? BuildState::kUnknown : build->status.state;
  }
  void MakeDurable(const TestBuild& build) {
    ASSERT_OK(registry_->MarkUploading(build.id));
    for (const auto& [kind, bytes] : build.files) {
      if (kind == FileKind::kMetadata) continue;
      ASSERT_OK(registry_->ConfirmInBase({build.id, kind}));
    }
    ASSERT_OK(registry_->ConfirmInBase({build.id, FileKind::kMetadata}, 1));
    ASSERT_OK(registry_->MarkDurable(build.id));
  }

  // Everything that was given to the pool until now is done after this.
  void WaitForPool() {
    absl::Notification done;
    pool_.Run(Priority::kPrefetch, [&] { done.Notify(); });
    done.WaitForNotification();
  }

  TempDir dir_{TempDir::Place::kMemory};
  SimulatedClock clock_;
  ThreadPool pool_{"sync", 1};
  std::unique_ptr<BuildRegistry> registry_;
};

TEST_F(BuildRegistryTest, WhatWasAddedIsServedAlsoAfterARestart) {
  const TestBuild build = Make();
  const auto added = Add(build);
  ASSERT_OK(added);
  EXPECT_EQ((*added)->status.state, BuildState::kLocal);
  EXPECT_EQ((*added)->paused_at, clock_.Now());
  EXPECT_EQ((*added)->files.size(), 6u);
  EXPECT_EQ(*added, registry_->Find(build.id));
  ExpectServed(build);
  const uint64_t incarnation = registry_->incarnation();
  EXPECT_EQ((*added)->status.incarnation, incarnation);

  std::filesystem::remove_all(dir_.PathOf("in-" + build.id.ToString()));
  Open();
  EXPECT_NE(registry_->incarnation(), incarnation);
  EXPECT_EQ(StateOf(build.id), BuildState::kLocal);
  EXPECT_EQ(registry_->Find(build.id)->paused_at, clock_.Now());
  EXPECT_THAT(registry_->StartupReport(), IsEmpty());
  ExpectServed(build);
}

TEST_F(BuildRegistryTest, FilesystemOnlyBuildsHaveThreeFiles) {
  const TestBuild build = Make(2, true);
  ASSERT_OK(Add(build, /*sync=*/true));
  EXPECT_EQ(registry_->Find(build.id)->files.size(), 3u);
  ExpectServed(build);
  EXPECT_EQ(CodeOf(registry_->OpenFile({build.id, FileKind::kMemfile})),
            absl::StatusCode::kNotFound);
}

TEST_F(BuildRegistryTest, ChildrenNameTheirAncestors) {
  const TestBuild base = Make(3);
  const TestBuild child = MakeTestBuild({.seed = 4, .parent = &base});
  ASSERT_OK(Add(base));
  ASSERT_OK(Add(child));
  EXPECT_THAT(registry_->Find(base.id)->ancestors, IsEmpty());
  EXPECT_THAT(registry_->Find(child.id)->ancestors, ElementsAre(base.id));
  EXPECT_EQ(registry_->List().size(), 2u);
}

TEST_F(BuildRegistryTest, UnknownBuildsAreNotFound) {
  const BuildId id = Make().id;
  EXPECT_EQ(registry_->Find(id), nullptr);
  EXPECT_EQ(CodeOf(registry_->OpenFile({id, FileKind::kRootfs})), absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(registry_->MarkUploading(id)), absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(registry_->Remove(id)), absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(registry_->ReplaceMetadata(id, "{}")), absl::StatusCode::kNotFound);
  registry_->NoteWaiting(id, "nothing");
}

TEST_F(BuildRegistryTest, AnIdIsTakenOnce) {
  const TestBuild build = Make();
  ASSERT_OK(Add(build));
  EXPECT_EQ(CodeOf(Add(build)), absl::StatusCode::kAlreadyExists);
  ExpectServed(build);
  EXPECT_EQ(CodeOf(registry_->Add(BuildId(), Write(build), false)),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(BuildRegistryTest, OfTwoAddsAtOnceOneWins) {
  const TestBuild build = Make();
  const SnapshotFiles files = Write(build);
  std::atomic<int> won = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] { won += registry_->Add(build.id, files, false).ok() ? 1 : 0; });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(won, 1);
  ExpectServed(build);
}

// Everything that is wrong with what is handed over: named in the error, and nothing left behind.
class BadSnapshotTest : public BuildRegistryTest {
 protected:
  void ExpectRefused(const SnapshotFiles& files, std::string_view what) {
    const auto added = registry_->Add(build_.id, files, false);
    EXPECT_EQ(added.status().code(), absl::StatusCode::kInvalidArgument) << added.status();
    EXPECT_THAT(std::string(added.status().message()), HasSubstr(std::string(what)));
    EXPECT_EQ(registry_->Find(build_.id), nullptr);
    EXPECT_THAT(dir_.folder().OpenAt("builds", O_RDONLY | O_DIRECTORY)->List().value(),
                testing::Each(testing::AnyOf(".lock", ".reserve")));
    EXPECT_OK(registry_->Add(build_.id, Write(build_), false)) << "the right files still go in";
  }
  void ExpectRefusedBytes(FileKind kind, const std::string& bytes, std::string_view what) {
    TestBuild bad = build_;
    bad.files[kind] = bytes;
    ExpectRefused(bad.WriteTo(dir_, "bad"), what);
  }

  const TestBuild build_ = Make();
};

TEST_F(BadSnapshotTest, MissingMetadata) {
  SnapshotFiles files = Write(build_);
  files.paths.erase(FileKind::kMetadata);
  ExpectRefused(files, "metadata.json is missing");
}

TEST_F(BadSnapshotTest, MissingSnapfile) {
  SnapshotFiles files = Write(build_);
  files.paths.erase(FileKind::kSnapfile);
  ExpectRefused(files, "snapfile is missing");
}

TEST_F(BadSnapshotTest, MemoryHeaderWithoutMemory) {
  SnapshotFiles files = Write(build_);
  files.paths.erase(FileKind::kMemfile);
  ExpectRefused(files, "memfile.header comes without memfile");
}

TEST_F(BadSnapshotTest, PathThatDoesNotExist) {
  SnapshotFiles files = Write(build_);
  files.paths[FileKind::kRootfs] += "-not";
  ExpectRefused(files, "rootfs.ext4-not): cannot be used: No such file");
}

TEST_F(BadSnapshotTest, RelativePath) {
  SnapshotFiles files = Write(build_);
  files.paths[FileKind::kRootfs] = "rootfs.ext4";
  ExpectRefused(files, "give an absolute path");
}

TEST_F(BadSnapshotTest, Folder) {
  SnapshotFiles files = Write(build_);
  files.paths[FileKind::kRootfs] = dir_.path();
  ExpectRefused(files, "not a regular file");
}

TEST_F(BadSnapshotTest, BlobThatCouldNotBeRestored) {
  SnapshotFiles files = Write(build_);
  ASSERT_EQ(truncate(files.paths[FileKind::kMetadata].c_str(), kMaxMetadataBytes + 1), 0);
  ExpectRefused(files, "could be restored");
}

TEST_F(BadSnapshotTest, HeaderOfAnotherBuild) {
  ExpectRefusedBytes(FileKind::kRootfsHeader, Make(9).files[FileKind::kRootfsHeader],
                     "rootfs.ext4.header");
}

TEST_F(BadSnapshotTest, HeaderThatIsNone) {
  ExpectRefusedBytes(FileKind::kMemfileHeader, "not a header", "memfile.header");
}

TEST_F(BadSnapshotTest, DiffShorterThanItsHeaderMaps) {
  const std::string& diff = build_.files.at(FileKind::kMemfile);
  ExpectRefusedBytes(FileKind::kMemfile, diff.substr(0, diff.size() - kPageBytes),
                     "bytes of this build, but memfile");
}

TEST_F(BadSnapshotTest, DiffCutShortWithinAPage) {
  const std::string& diff = build_.files.at(FileKind::kMemfile);
  ExpectRefusedBytes(FileKind::kMemfile, diff.substr(0, diff.size() - 1),
                     "bytes of this build, but memfile");
}

TEST_F(BadSnapshotTest, HeaderMarkedIncomplete) {
  const Header plain = *Header::Decode(build_.files.at(FileKind::kRootfsHeader));
  HeaderMetadata metadata = plain.metadata();
  metadata.version = 4;
  const std::vector<Mapping> mappings(plain.mappings().begin(), plain.mappings().end());
  const auto header = Header::Create(metadata, mappings, {.incomplete = true});
  ASSERT_OK(header);
  ExpectRefusedBytes(FileKind::kRootfsHeader, header->Encode(), "marked incomplete");
}

TEST_F(BuildRegistryTest, AHeaderThatMapsACompressedDiffIsUnimplemented) {
  TestBuild build = Make();
  build.files[FileKind::kRootfsHeader] = build.HeaderWithCompression(FileKind::kRootfs);
  const auto added = Add(build);
  EXPECT_EQ(CodeOf(added), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(added.status().message()), HasSubstr("compressed (zstd)"));
}

TEST_F(BadSnapshotTest, MetadataThatIsNoJson) {
  ExpectRefusedBytes(FileKind::kMetadata, "{\"version\":2", "not a JSON object");
}

TEST_F(BadSnapshotTest, MetadataThatIsNoObject) {
  ExpectRefusedBytes(FileKind::kMetadata, "[1]", "not a JSON object");
}

TEST_F(BadSnapshotTest, MetadataOfAnotherBuild) {
  ExpectRefusedBytes(FileKind::kMetadata, Make(9).files[FileKind::kMetadata],
                     "template.build_id is");
}

TEST_F(BadSnapshotTest, MetadataThatDeniesTheMemory) {
  ExpectRefusedBytes(FileKind::kMetadata, "{\"filesystem_only\":true}", "filesystem_only is true");
}

TEST_F(BuildRegistryTest, ABuildWithoutMemorySaysSo) {
  TestBuild build = MakeTestBuild({.memfile_bytes = 0});
  const std::string said = build.files[FileKind::kMetadata];
  for (const auto& [metadata, value] :
       std::map<std::string, std::string>{{"{}", "not set"},
                                          {"{\"filesystem_only\":false}", "false"},
                                          {"{\"filesystem_only\":1}", "1"}}) {
    build.files[FileKind::kMetadata] = metadata;
    const absl::Status added = Add(build).status();
    EXPECT_EQ(CodeOf(added), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(added.message()), HasSubstr("filesystem_only is " + value + ", but"));
  }
  build.files[FileKind::kMetadata] = said;
  ASSERT_OK(Add(build));
  EXPECT_EQ(CodeOf(registry_->ReplaceMetadata(build.id, "{}")), absl::StatusCode::kInvalidArgument);
}

TEST_F(BuildRegistryTest, MetadataWithoutABuildIdIsTaken) {
  TestBuild build = Make();
  build.files[FileKind::kMetadata] = "{\"template\":{\"kernel_version\":\"6\"}}";
  EXPECT_OK(Add(build));
}

TEST_F(BuildRegistryTest, ADiffThatEndsWithinAPageIsTaken) {
  TestBuild build = Make(5, true);
  const uint64_t size = 3 * kPageBytes + 100;
  HeaderMetadata metadata;
  metadata.block_size = kPageBytes;
  metadata.size = size;
  metadata.build_id = metadata.base_build_id = build.id;
  build.files[FileKind::kRootfsHeader] = Header::CreateIdentity(metadata)->Encode();
  build.files[FileKind::kRootfs] = std::string(size, 'r');
  EXPECT_OK(Add(build));
}

TEST_F(BuildRegistryTest, ASecondRegistryOnTheFolderIsRefused) {
  const auto second = TryOpen();
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr("in use by another process (pid " + std::to_string(getpid())));
  registry_ = nullptr;
  EXPECT_OK(TryOpen());
}

TEST_F(BuildRegistryTest, AFolderThatCannotBeMadeIsNamed) {
  dir_.Write("plain", "");
  const auto opened = BuildRegistry::Open({.folder = dir_.PathOf("plain/builds")});
  EXPECT_FALSE(opened.ok());
  EXPECT_THAT(std::string(opened.status().message()), HasSubstr("plain/builds"));
}

TEST_F(BuildRegistryTest, TransitionsGoTheirWayAndSurvive) {
  const TestBuild build = Make();
  ASSERT_OK(Add(build));
  uint64_t sequence = registry_->Find(build.id)->status.sequence;
  const auto expect_newer = [&] {
    EXPECT_GT(registry_->Find(build.id)->status.sequence, sequence);
    sequence = registry_->Find(build.id)->status.sequence;
  };
  EXPECT_EQ(CodeOf(registry_->MarkDurable(build.id)), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(registry_->ConfirmInBase({build.id, FileKind::kMemfile})),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_OK(registry_->MarkUploading(build.id));
  expect_newer();
  EXPECT_OK(registry_->MarkUploading(build.id));
  EXPECT_EQ(registry_->Find(build.id)->status.sequence, sequence) << "nothing changed";

  EXPECT_EQ(CodeOf(registry_->ConfirmInBase({build.id, FileKind::kMetadata}, 1)),
            absl::StatusCode::kFailedPrecondition)
      << "metadata.json is last";
  for (const auto& [kind, bytes] : build.files) {
    if (kind == FileKind::kMetadata) continue;
    EXPECT_EQ(CodeOf(registry_->MarkDurable(build.id)), absl::StatusCode::kFailedPrecondition);
    ASSERT_OK(registry_->ConfirmInBase({build.id, kind}));
    expect_newer();
    Open();
    sequence = registry_->Find(build.id)->status.sequence;
    EXPECT_EQ(StateOf(build.id), BuildState::kUploading);
    EXPECT_TRUE(registry_->Find(build.id)->files.at(kind).in_base);
  }
  EXPECT_EQ(CodeOf(registry_->MarkDurable(build.id)), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(registry_->ConfirmInBase({build.id, FileKind::kMetadata}, 2)),
            absl::StatusCode::kInvalidArgument);
  ASSERT_OK(registry_->ConfirmInBase({build.id, FileKind::kMetadata}, 1));
  ASSERT_OK(registry_->MarkDurable(build.id));
  EXPECT_OK(registry_->MarkDurable(build.id));

  for (int i = 0; i < 2; ++i) {  // Final, also after a restart.
    EXPECT_EQ(CodeOf(registry_->MarkFailed(build.id, "no")), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(CodeOf(registry_->MarkUploading(build.id)), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(CodeOf(registry_->Retry(build.id)), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(StateOf(build.id), BuildState::kDurable);
    Open();
  }
}

TEST_F(BuildRegistryTest, ConfirmingAFileThatABuildDoesNotHaveIsNotFound) {
  const TestBuild build = Make(2, true);
  ASSERT_OK(Add(build));
  ASSERT_OK(registry_->MarkUploading(build.id));
  EXPECT_EQ(CodeOf(registry_->ConfirmInBase({build.id, FileKind::kMemfile})),
            absl::StatusCode::kNotFound);
}

TEST_F(BuildRegistryTest, FailedIsShownKeptServedAndLeftByRetryOrRestart) {
  const TestBuild build = Make();
  ASSERT_OK(Add(build));
  ASSERT_OK(registry_->MarkUploading(build.id));
  ASSERT_OK(registry_->ConfirmInBase({build.id, FileKind::kMemfile}));
  ASSERT_OK(registry_->RecordAttempt(build.id, absl::UnavailableError("the base is gone")));
  EXPECT_EQ(registry_->Find(build.id)->upload_attempts, 1u);
  EXPECT_EQ(registry_->Find(build.id)->reason, "the base is gone");
  for (const bool restart : {false, true}) {
    ASSERT_OK(registry_->MarkFailed(build.id, "gave up"));
    EXPECT_EQ(StateOf(build.id), BuildState::kFailed);
    EXPECT_EQ(registry_->Find(build.id)->reason, "gave up");
    EXPECT_EQ(CodeOf(registry_->MarkUploading(build.id)), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(CodeOf(registry_->RecordAttempt(build.id, absl::UnavailableError(""))),
              absl::StatusCode::kFailedPrecondition);
    ExpectServed(build);
    if (restart) {
      Open();
    } else {
      ASSERT_OK(registry_->Retry(build.id));
    }
    const auto found = registry_->Find(build.id);
    EXPECT_EQ(found->status.state, BuildState::kLocal);
    EXPECT_EQ(found->upload_attempts, 0u);
    EXPECT_EQ(found->reason, "");
    EXPECT_TRUE(found->files.at(FileKind::kMemfile).in_base) << "what is confirmed stays so";
  }
  EXPECT_EQ(CodeOf(registry_->Retry(build.id)), absl::StatusCode::kFailedPrecondition);
}

TEST_F(BuildRegistryTest, WhatAnUploadWaitsForIsShown) {
  const TestBuild build = Make();
  ASSERT_OK(Add(build));
  const auto held = registry_->Find(build.id);
  registry_->NoteWaiting(build.id, "its ancestor");
  EXPECT_EQ(held->reason, "") << "a snapshot does not change";
  const auto noted = registry_->Find(build.id);
  EXPECT_EQ(noted->reason, "its ancestor");
  registry_->NoteWaiting(build.id, "its ancestor");
  EXPECT_EQ(registry_->Find(build.id), noted);
}

TEST_F(BuildRegistryTest, MetadataIsReplacedWholeAndVersioned) {
  TestBuild build = Make();
  ASSERT_OK(Add(build));
  const BuildFileId id{build.id, FileKind::kMetadata};
  const auto old_file = *registry_->OpenFile(id);
  const std::string old_bytes = build.files[FileKind::kMetadata];
  for (uint64_t version = 2; version <= 4; ++version) {
    build.files[FileKind::kMetadata] = "{\"prefetch\":" + std::to_string(version) + "}";
    ASSERT_OK(registry_->ReplaceMetadata(build.id, build.files[FileKind::kMetadata]));
    EXPECT_EQ(registry_->Find(build.id)->metadata_version, version);
    ExpectServed(build);
    Open();
    EXPECT_EQ(registry_->Find(build.id)->metadata_version, version);
    ExpectServed(build);
    EXPECT_EQ(dir_.Read(Inside(build.id, "metadata.json." + std::to_string(version))),
              build.files[FileKind::kMetadata]);
  }
  std::string got(old_bytes.size(), '?');
  ASSERT_OK(old_file->ReadAt(0, absl::MakeSpan(got), {}));
  EXPECT_EQ(got, old_bytes) << "a pin stays readable";
  const auto entries =
      dir_.folder().OpenAt("builds/" + build.id.ToString(), O_RDONLY | O_DIRECTORY)->List().value();
  EXPECT_EQ(entries.size(), 8u) << "old versions are removed";
}

TEST_F(BuildRegistryTest, BadMetadataReplacesNothing) {
  const TestBuild build = Make();
  ASSERT_OK(Add(build));
  for (const std::string& bad :
       {std::string("{"), std::string("[]"), std::string("{\"filesystem_only\":true}"),
        Make(9).files[FileKind::kMetadata], std::string(kMaxMetadataBytes + 1, ' ')}) {
    EXPECT_EQ(CodeOf(registry_->ReplaceMetadata(build.id, bad)),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(registry_->Find(build.id)->metadata_version, 1u);
  ExpectServed(build);
}

TEST_F(BuildRegistryTest, NewMetadataOfADurableBuildIsNotInTheBase) {
  const TestBuild build = Make();
  ASSERT_OK(Add(build));
  MakeDurable(build);
  EXPECT_EQ(registry_->Find(build.id)->metadata_version_in_base, 1u);
  ASSERT_OK(registry_->ReplaceMetadata(build.id, "{}"));
  for (int i = 0; i < 2; ++i) {
    const auto found = registry_->Find(build.id);
    EXPECT_EQ(found->status.state, BuildState::kDurable);
    EXPECT_FALSE(found->files.at(FileKind::kMetadata).in_base);
    EXPECT_EQ(found->metadata_version, 2u);
    EXPECT_EQ(found->metadata_version_in_base, 1u);
    Open();
  }
  EXPECT_OK(registry_->ConfirmInBase({build.id, FileKind::kMetadata}, 1)) << "old news";
  EXPECT_FALSE(registry_->Find(build.id)->files.at(FileKind::kMetadata).in_base);
  ASSERT_OK(registry_->ConfirmInBase({build.id, FileKind::kMetadata}, 2));
  EXPECT_TRUE(registry_->Find(build.id)->files.at(FileKind::kMetadata).in_base);
}

TEST_F(BuildRegistryTest, MetadataReplacedDuringTheUploadStillAllowsDurable) {
  const TestBuild build = Make();
  ASSERT_OK(Add(build));
  ASSERT_OK(registry_->MarkUploading(build.id));
  for (const auto& [kind, bytes] : build.files) {
    if (kind == FileKind::kMetadata) continue;
    ASSERT_OK(registry_->ConfirmInBase({build.id, kind}));
  }
  ASSERT_OK(registry_->ReplaceMetadata(build.id, "{}"));
  ASSERT_OK(registry_->ConfirmInBase({build.id, FileKind::kMetadata}, 1));
  EXPECT_OK(registry_->MarkDurable(build.id));
  EXPECT_EQ(registry_->Find(build.id)->metadata_version_in_base, 1u);
}

TEST_F(BuildRegistryTest, RemoveForgetsAndPinsStayReadable) {
  const TestBuild build = Make();
  ASSERT_OK(Add(build));
  const auto file = *registry_->OpenFile({build.id, FileKind::kMemfile});
  ASSERT_OK(registry_->Remove(build.id));
  EXPECT_EQ(registry_->Find(build.id), nullptr);
  EXPECT_FALSE(std::filesystem::exists(dir_.PathOf("builds/" + build.id.ToString())));
  std::string got(build.files.at(FileKind::kMemfile).size(), '?');
  ASSERT_OK(file->ReadAt(0, absl::MakeSpan(got), {}));
  EXPECT_TRUE(got == build.files.at(FileKind::kMemfile));
  EXPECT_OK(Add(build)) << "may be paused here again";
  std::filesystem::remove_all(dir_.PathOf("builds/" + build.id.ToString()));
  EXPECT_OK(registry_->Remove(build.id)) << "also when someone else was there first";
}

TEST_F(BuildRegistryTest, ACorruptCopyIsFailedAndNotServed) {
  const TestBuild build = Make();
  ASSERT_OK(Add(build));
  const auto file = dir_.folder().OpenAt(Inside(build.id, "memfile"), O_RDWR);
  ASSERT_OK(file);
  ASSERT_OK(file->WriteAt(kMiB + 7, "x"));
  const auto open = registry_->OpenFile({build.id, FileKind::kMemfile});
  ASSERT_OK(open);
  char byte = 0;
  EXPECT_OK((*open)->ReadAt(0, absl::MakeSpan(&byte, 1), {}));
  EXPECT_EQ(CodeOf((*open)->ReadAt(kMiB, absl::MakeSpan(&byte, 1), {})),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(StateOf(build.id), BuildState::kFailed);
  EXPECT_THAT(registry_->Find(build.id)->reason, HasSubstr("memfile: the block at 1048576"));
}

TEST_F(BuildRegistryTest, AFileThatIsGoneIsFailed) {
  const TestBuild build = Make();
  ASSERT_OK(Add(build));
  ASSERT_OK(dir_.folder().Remove(Inside(build.id, "snapfile")));
  EXPECT_EQ(CodeOf(registry_->OpenFile({build.id, FileKind::kSnapfile})),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(StateOf(build.id), BuildState::kFailed);
}

TEST_F(BuildRegistryTest, APinThatOutlivesTheRegistryMayFindItselfCorrupt) {
  const TestBuild build = Make();
  ASSERT_OK(Add(build));
  const auto file = *registry_->OpenFile({build.id, FileKind::kMemfile});
  ASSERT_OK(dir_.folder().OpenAt(Inside(build.id, "memfile"), O_RDWR)->WriteAt(0, "x"));
  registry_ = nullptr;
  char byte = 0;
  EXPECT_EQ(CodeOf(file->ReadAt(0, absl::MakeSpan(&byte, 1), {})), absl::StatusCode::kDataLoss);
}

TEST_F(BuildRegistryTest, LostOrShortFilesAreFoundAtStart) {
  const TestBuild lost = Make(1);
  const TestBuild cut = Make(2);
  const TestBuild durable = Make(3);
  for (const TestBuild* build : {&lost, &cut, &durable}) ASSERT_OK(Add(*build));
  MakeDurable(durable);
  ASSERT_OK(dir_.folder().Remove(Inside(lost.id, "memfile")));
  ASSERT_OK(dir_.folder().OpenAt(Inside(cut.id, "snapfile"), O_RDWR)->Truncate(3));
  ASSERT_OK(dir_.folder().Remove(Inside(durable.id, "memfile")));
  for (int i = 0; i < 2; ++i) {
    Open();
    EXPECT_EQ(StateOf(lost.id), BuildState::kFailed);
    EXPECT_EQ(StateOf(cut.id), BuildState::kFailed);
    EXPECT_THAT(registry_->Find(cut.id)->reason, HasSubstr("snapfile has 3 bytes"));
    EXPECT_EQ(StateOf(durable.id), BuildState::kDurable);
    EXPECT_EQ(registry_->StartupReport().size(), 3u);
  }
}

TEST_F(BuildRegistryTest, UnfinishedPausesAndRemovalsAreClearedAtStart) {
  const TestBuild build = Make();
  ASSERT_OK(Add(build));
  const std::string other = Make(2).id.ToString();
  dir_.Write("builds/.pause-" + other + "/memfile", "half");
  dir_.Write("builds/.remove-" + other + "/memfile", "half");
  dir_.Write(Inside(build.id, ".tmp-1234"), "half a record");
  dir_.Write(Inside(build.id, "metadata.json.2"), "replaced, but never recorded");
  dir_.Write("builds/README", "someone's");
  Open();
  EXPECT_EQ(registry_->StartupReport().size(), 2u);
  EXPECT_THAT(registry_->StartupReport(),
              Contains(HasSubstr("a pause that had not returned: .pause-" + other)));
  EXPECT_FALSE(std::filesystem::exists(dir_.PathOf("builds/.pause-" + other)));
  EXPECT_FALSE(std::filesystem::exists(dir_.PathOf("builds/.remove-" + other)));
  EXPECT_FALSE(std::filesystem::exists(dir_.PathOf(Inside(build.id, ".tmp-1234"))));
  EXPECT_FALSE(std::filesystem::exists(dir_.PathOf(Inside(build.id, "metadata.json.2"))));
  EXPECT_TRUE(std::filesystem::exists(dir_.PathOf("builds/README")));
  ExpectServed(build);
}

TEST_F(BuildRegistryTest, ADamagedRecordIsSetAsideAndTheRestIsServed) {
  const TestBuild damaged = Make(1);
  const TestBuild good = Make(2);
  ASSERT_OK(Add(damaged));
  ASSERT_OK(Add(good));
  for (int round = 1; round <= 2; ++round) {
    dir_.Write(Inside(damaged.id, "record.json"), "{}");
    Open();
    EXPECT_EQ(registry_->Find(damaged.id), nullptr);
    const std::string aside = ".damaged-" + damaged.id.ToString() + "-" + std::to_string(round);
    EXPECT_THAT(registry_->StartupReport(), Contains(HasSubstr("set aside as " + aside)));
    EXPECT_TRUE(dir_.Read("builds/" + aside + "/memfile") == damaged.files.at(FileKind::kMemfile))
        << "nothing is deleted";
    ExpectServed(good);
    ASSERT_OK(Add(damaged)) << "and may be paused again";
  }
}

TEST_F(BuildRegistryTest, ARecordOfANewerFormatIsLeftAlone) {
  const TestBuild build = Make();
  ASSERT_OK(Add(build));
  dir_.Write(Inside(build.id, "record.json"), "{\"format\":3}");
  Open();
  EXPECT_EQ(registry_->Find(build.id), nullptr);
  EXPECT_THAT(registry_->StartupReport(), ElementsAre(HasSubstr("left as it is")));
  EXPECT_EQ(CodeOf(Add(build)), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(dir_.Read(Inside(build.id, "memfile")) == build.files.at(FileKind::kMemfile));
}

TEST_F(BuildRegistryTest, LostBlockChecksumsAreMadeAgainFromGoodFilesOnly) {
  const TestBuild build = Make();
  ASSERT_OK(Add(build));
  dir_.Write(Inside(build.id, "blocks.crc"), "rubbish");
  Open();
  EXPECT_THAT(registry_->StartupReport(), ElementsAre(HasSubstr("made again")));
  ExpectServed(build);
  Open();
  EXPECT_THAT(registry_->StartupReport(), IsEmpty());

  ASSERT_OK(dir_.folder().Remove(Inside(build.id, "blocks.crc")));
  ASSERT_OK(dir_.folder().OpenAt(Inside(build.id, "memfile"), O_RDWR)->WriteAt(5, "x"));
  Open();
  EXPECT_EQ(registry_->Find(build.id), nullptr);
  EXPECT_THAT(registry_->StartupReport(), ElementsAre(HasSubstr("set aside")));
}

// A build is as good as before when its disk cannot be read just now.
TEST_F(BuildRegistryTest, ABuildThatCannotBeReadJustNowStaysWhereItIs) {
  const TestBuild build = Make();
  ASSERT_OK(Add(build));
  registry_ = nullptr;
  WaitForPool();  // The build is being synced; that needs descriptors, too.
  // The folder, its lock and the build's folder may still be opened; the record may not. What is
  // open already need not have the lowest numbers.
  std::vector<File> next;
  for (int i = 0; i < 4; ++i) next.emplace_back(dup(dir_.folder().fd()));
  const int one_too_many = next.back().fd();
  next.clear();
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit few = before;
  few.rlim_cur = static_cast<rlim_t>(one_too_many);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  const auto opened = TryOpen();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_OK(opened);
  EXPECT_EQ((*opened)->Find(build.id), nullptr);
  EXPECT_THAT(
      (*opened)->StartupReport(),
      ElementsAre(testing::AllOf(HasSubstr(build.id.ToString()), HasSubstr("Too many open files"),
                                 HasSubstr("left as it is and not served"))));
}

TEST_F(BuildRegistryTest, WhatWasReadFromElsewhereIsRecordedWithTheChild) {
  const TestBuild base = Make(3);
  const TestBuild child = MakeTestBuild({.seed = 4, .parent = &base});
  ASSERT_OK(registry_->Add(child.id, Write(child), false, [&](const BuildId& ancestor) {
    EXPECT_EQ(ancestor, base.id);
    return std::vector<std::string>{"10.0.0.1:7070"};
  }));
  Open();
  EXPECT_THAT(registry_->Find(child.id)->ancestor_sources,
              ElementsAre(testing::Pair(base.id, ElementsAre("10.0.0.1:7070"))));
}

TEST_F(BuildRegistryTest, ABuildThatWasDiscardedIsRememberedUntilItIsPausedAgain) {
  const TestBuild build = Make(1);
  const TestBuild durable = Make(2);
  ASSERT_OK(Add(build));
  ASSERT_OK(Add(durable));
  MakeDurable(durable);
  ASSERT_OK(registry_->Remove(durable.id));
  EXPECT_FALSE(registry_->Discarded(build.id));
  ASSERT_OK(registry_->Remove(build.id));
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(registry_->Discarded(build.id));
    EXPECT_FALSE(registry_->Discarded(durable.id)) << "the base has it";
    Open();
    EXPECT_THAT(registry_->StartupReport(), IsEmpty());
  }
  ASSERT_OK(Add(build));
  EXPECT_FALSE(registry_->Discarded(build.id));
  // As a process would leave it that is killed before the removal begins.
  dir_.Write("builds/.discarded-" + build.id.ToString(), "");
  for (int i = 0; i < 2; ++i) {
    Open();
    EXPECT_FALSE(registry_->Discarded(build.id));
    ExpectServed(build);
  }
  EXPECT_FALSE(std::filesystem::exists(dir_.PathOf("builds/.discarded-" + build.id.ToString())));
}

TEST_F(BuildRegistryTest, RemovalAsksWhenNothingCanChangeTheBuildAnyMore) {
  const TestBuild build = Make();
  ASSERT_OK(Add(build));
  MakeDurable(build);
  ASSERT_OK(registry_->ReplaceMetadata(build.id, "{}"));
  EXPECT_EQ(CodeOf(registry_->Remove(build.id, HeldByBase)), absl::StatusCode::kFailedPrecondition);
  ASSERT_OK(registry_->ConfirmInBase({build.id, FileKind::kMetadata}, 2));
  // A change that comes while the question is asked comes too late.
  std::thread late;
  EXPECT_OK(registry_->Remove(build.id, [&](const RecordedBuild& now) {
    EXPECT_EQ(now.metadata_version, 2u);
    late = std::thread([&] {
      EXPECT_EQ(CodeOf(registry_->ReplaceMetadata(build.id, "{\"late\":1}")),
                absl::StatusCode::kNotFound);
    });
    return true;
  }));
  late.join();
}

TEST_F(BuildRegistryTest, ReadersSeeWholeSnapshotsWhileStatesChange) {
  const TestBuild build = Make(1, true);
  ASSERT_OK(Add(build));
  std::atomic<bool> stop = false;
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      uint64_t sequence = 0;
      while (!stop) {
        const auto found = registry_->Find(build.id);
        EXPECT_GE(found->status.sequence, sequence);
        sequence = found->status.sequence;
        const auto file = registry_->OpenFile({build.id, FileKind::kMetadata});
        EXPECT_OK(file);
        char byte = 0;
        EXPECT_OK((*file)->ReadAt(0, absl::MakeSpan(&byte, 1), {}));
        EXPECT_EQ(byte, '{');
        EXPECT_EQ(registry_->List().size(), 1u);
      }
    });
  }
  for (int i = 0; i < 30; ++i) {
    EXPECT_OK(registry_->ReplaceMetadata(
        build.id, "{\"filesystem_only\":true,\"n\":" + std::to_string(i) + "}"));
    EXPECT_OK(registry_->RecordAttempt(build.id, absl::UnavailableError("x")));
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(registry_->Find(build.id)->metadata_version, 31u);
  EXPECT_EQ(registry_->Find(build.id)->upload_attempts, 30u);
}

}  // namespace
}  // namespace peerchunk::test
