#include "node/fetch_build.h"

#include <fcntl.h>

#include <filesystem>
#include <memory>
#include <stop_token>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/rename.h"
#include "base/temporary_file.h"
#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/metrics.h"
#include "peerchunk/peer/peer_directory.h"
#include "tests/support/memory_storage.h"
#include "tests/support/simulated_peer.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_build.h"

namespace peerchunk {
namespace {

using test::CodeOf;
using testing::HasSubstr;
using testing::Not;

class FetchBuildTest : public testing::Test {
 protected:
  FetchBuildTest() { SeedAll(build_); }

  static std::string PathIn(const BuildId& id, FileKind kind) {
    return BuildFileId{id, kind}.ObjectPath();
  }
  void SeedAll(const test::TestBuild& build) {
    for (const auto& [kind, bytes] : build.files) base_->Seed(PathIn(build.id, kind), bytes);
  }
  void Seed(FileKind kind, std::string bytes) { base_->Seed(PathIn(build_.id, kind), bytes); }
  void Remove(FileKind kind) { base_->Remove(PathIn(build_.id, kind)); }

  absl::StatusOr<std::vector<FetchedFile>> Fetch(FetchOptions options = {}) {
    if (options.folder.empty()) options.folder = folder_.PathOf("out");
    const auto content = ContentOf(build_.id, base_);
    return FetchBuild(build_.id, *content, options);
  }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.PathOf("out"))) {
      names.push_back(entry.path().filename());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  test::TempDir folder_;
  test::TestBuild build_ = test::MakeTestBuild({});
  std::shared_ptr<test::MemoryStorageProvider> base_ =
      std::make_shared<test::MemoryStorageProvider>();
};

TEST_F(FetchBuildTest, EveryFileComesOutAsItIsWithMetadataLast) {
  FetchState last;
  const auto fetched = Fetch({.on_progress = [&](const FetchState& state) { last = state; }});
  ASSERT_OK(fetched);
  ASSERT_EQ(fetched->size(), 6u);
  EXPECT_EQ(fetched->back().kind, FileKind::kMetadata);
  uint64_t total = 0;
  for (const FetchedFile& file : *fetched) {
    const std::string& bytes = build_.files.at(file.kind);
    EXPECT_TRUE(folder_.Read("out/" + std::string(FileName(file.kind))) == bytes);
    EXPECT_EQ(file.size, bytes.size());
    EXPECT_EQ(file.crc32c, Crc32c(bytes));
    EXPECT_FALSE(file.was_there);
    total += bytes.size();
  }
  EXPECT_EQ(last.total_done, total);
  EXPECT_EQ(last.total_size, total);
  EXPECT_EQ(Names().size(), 6u);
}

TEST_F(FetchBuildTest, PeerWithLessOfADiffThanItsHeaderNeedsIsLeftForTheBase) {
  const auto network = std::make_shared<test::SimulatedNetwork>(Clock::Real());
  for (const auto& [kind, bytes] : build_.files) {
    const uint64_t missing = IsSeekable(kind) ? 1 : 0;
    network->Node("10.0.0.1:1").PutFile({build_.id, kind}, bytes.substr(0, bytes.size() - missing));
  }
  Metrics metrics;
  const auto directory = PeerDirectory::Create(
      {.policy = *AddressPolicy::Create({}), .connector = network, .metrics = &metrics});
  ASSERT_OK(directory);
  const auto provider = (*directory)->OpenBuild(build_.id, {"10.0.0.1:1"}, base_);
  ASSERT_OK(provider);
  const auto content = ContentOf(build_.id, *provider);
  ASSERT_OK(FetchBuild(build_.id, *content, {.folder = folder_.PathOf("out")}));
  for (const auto& [kind, bytes] : build_.files) {
    EXPECT_TRUE(folder_.Read("out/" + std::string(FileName(kind))) == bytes);
  }
}

TEST_F(FetchBuildTest, ZerosAreHolesAndCountedApart) {
  // A diff may hold zeros all the same, for instance one that another program made.
  std::string diff = build_.files.at(FileKind::kMemfile);
  diff.append(1 << 20, '\0');
  Seed(FileKind::kMemfile, diff);
  FetchState last;
  ASSERT_OK(Fetch({.on_progress = [&](const FetchState& state) { last = state; }}));
  EXPECT_TRUE(folder_.Read("out/memfile") == diff);
  EXPECT_GE(last.zero_bytes, 1u << 20);
}

TEST_F(FetchBuildTest, AFilesystemOnlyBuildHasThreeFiles) {
  build_ = test::MakeTestBuild({.memfile_bytes = 0, .seed = 5});
  SeedAll(build_);
  ASSERT_OK(Fetch());
  EXPECT_THAT(Names(), testing::ElementsAre("metadata.json", "rootfs.ext4", "rootfs.ext4.header"));
}

TEST_F(FetchBuildTest, WithoutMetadataTheBuildIsNotThere) {
  Remove(FileKind::kMetadata);
  const auto fetched = Fetch();
  EXPECT_EQ(CodeOf(fetched), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(fetched.status().message()), HasSubstr("metadata.json is missing"));
  EXPECT_TRUE(Names().empty());
}

TEST_F(FetchBuildTest, FilesThatDoNotBelongTogetherAreDataLoss) {
  for (const FileKind kind : {FileKind::kRootfsHeader, FileKind::kSnapfile,
                              FileKind::kMemfileHeader, FileKind::kMemfile, FileKind::kRootfs}) {
    SeedAll(build_);
    Remove(kind);
    EXPECT_EQ(CodeOf(Fetch()), absl::StatusCode::kDataLoss) << FileName(kind);
    EXPECT_FALSE(std::filesystem::exists(folder_.PathOf("out/metadata.json")));
    std::filesystem::remove_all(folder_.PathOf("out"));
  }
  SeedAll(build_);
  Seed(FileKind::kMemfileHeader,
       test::MakeTestBuild({.seed = 6}).files.at(FileKind::kMemfileHeader));
  EXPECT_EQ(CodeOf(Fetch()), absl::StatusCode::kDataLoss);
  SeedAll(build_);
  Seed(FileKind::kMemfile, build_.files.at(FileKind::kMemfile).substr(0, 4096));
  const auto fetched = Fetch();
  EXPECT_EQ(CodeOf(fetched), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(fetched.status().message()), HasSubstr("its header needs"));
  EXPECT_TRUE(Names().empty());
}

// Hands out scripted streams instead of the diffs that there are.
class ScriptedContent final : public BuildContent {
 public:
  struct Stream {
    std::vector<Extent> extents;
    absl::Status end;
  };

  ScriptedContent(BuildContent& honest, DiffStat claims, std::vector<Stream> streams)
      : honest_(honest), claims_(claims), streams_(std::move(streams)) {}

  absl::StatusOr<std::shared_ptr<const std::string>> Blob(FileKind kind,
                                                          const ReadOptions& options) override {
    return honest_.Blob(kind, options);
  }
  absl::StatusOr<std::optional<DiffStat>> StatDiff(FileKind kind,
                                                   const ReadOptions& options) override {
    if (kind == FileKind::kMemfile) return claims_;
    return honest_.StatDiff(kind, options);
  }
  absl::StatusOr<std::unique_ptr<RangeReader>> ReadDiff(FileKind kind, uint64_t offset,
                                                        const ReadOptions& options) override {
    if (kind != FileKind::kMemfile) return honest_.ReadDiff(kind, offset, options);
    class Reader final : public RangeReader {
     public:
      explicit Reader(Stream stream) : stream_(std::move(stream)) {}
      absl::StatusOr<std::optional<Extent>> Next() override {
        if (at_ < stream_.extents.size()) return stream_.extents[at_++];
        if (!stream_.end.ok()) return stream_.end;
        return std::nullopt;
      }

     private:
      Stream stream_;
      size_t at_ = 0;
    };
    offsets.push_back(offset);
    return std::make_unique<Reader>(streams_.at(offsets.size() - 1));
  }

  std::vector<uint64_t> offsets;  // Where the streams were asked to begin.

 private:
  BuildContent& honest_;
  const DiffStat claims_;
  const std::vector<Stream> streams_;
};

class ScriptedFetchTest : public FetchBuildTest {
 protected:
  static Extent At(uint64_t offset, const std::string_view& piece) {
    return {.offset = offset, .length = piece.size(), .pieces = {&piece, 1}};
  }
  absl::Status Fetch(BuildContent::DiffStat claims, std::vector<ScriptedContent::Stream> streams) {
    const auto honest = ContentOf(build_.id, base_);
    ScriptedContent content(*honest, claims, std::move(streams));
    const absl::Status status =
        FetchBuild(build_.id, content, {.folder = folder_.PathOf("out")}).status();
    offsets_ = content.offsets;
    return status;
  }

  const std::string& diff_ = build_.files.at(FileKind::kMemfile);
  const std::string_view whole_ = diff_;
  const std::string_view first_ = whole_.substr(0, 8192);
  const std::string_view rest_ = whole_.substr(8192);
  std::vector<uint64_t> offsets_;
};

TEST_F(ScriptedFetchTest, ADiffThatIsNotWhatWasPromisedNeverGetsItsName) {
  const absl::Status crc =
      Fetch({.size = diff_.size(), .crc32c = Crc32c(diff_) + 1}, {{{At(0, whole_)}, {}}});
  EXPECT_EQ(crc.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(crc.message()), HasSubstr("recorded CRC32C"));
  for (const std::vector<Extent>& extents :
       {std::vector<Extent>{At(0, first_)},                               // Cut short.
        std::vector<Extent>{At(4096, whole_)},                            // A gap.
        std::vector<Extent>{At(0, whole_), At(diff_.size(), first_)}}) {  // Too long.
    EXPECT_EQ(Fetch({.size = diff_.size()}, {{extents, {}}}).code(), absl::StatusCode::kDataLoss);
  }
  EXPECT_TRUE(Names().empty());
}

TEST_F(ScriptedFetchTest, AStreamThatGainedSomethingBeginsAnewWhereItStopped) {
  for (const absl::Status& cut :
       {absl::UnavailableError("gone"), absl::DeadlineExceededError("late")}) {
    EXPECT_EQ(Fetch({.size = diff_.size(), .crc32c = Crc32c(diff_)},
                    {{{At(0, first_)}, cut}, {{At(first_.size(), rest_)}, {}}}),
              absl::OkStatus());
    EXPECT_THAT(offsets_, testing::ElementsAre(0, first_.size()));
    EXPECT_TRUE(folder_.Read("out/memfile") == diff_);
    std::filesystem::remove_all(folder_.PathOf("out"));
  }
}

TEST_F(ScriptedFetchTest, AStreamThatGainedNothingIsTheEnd) {
  const absl::Status status = Fetch(
      {.size = diff_.size()},
      {{{At(0, first_)}, absl::UnavailableError("gone")}, {{}, absl::UnavailableError("both")}});
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("both"));
  EXPECT_EQ(
      Fetch({.size = diff_.size()}, {{{At(0, first_)}, absl::PermissionDeniedError("no")}}).code(),
      absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(Names().empty());
}

TEST_F(FetchBuildTest, WhatIsThereAlreadyIsKeptOrRefusedOrReplaced) {
  ASSERT_OK(Fetch());
  const auto again = Fetch();
  ASSERT_OK(again);
  for (const FetchedFile& file : *again) EXPECT_TRUE(file.was_there);
  for (const FileKind kind : {FileKind::kMemfile, FileKind::kMetadata}) {
    const std::string name = "out/" + std::string(FileName(kind));
    folder_.Write(name, "something else");
    const auto refused = Fetch();
    EXPECT_EQ(CodeOf(refused), absl::StatusCode::kAlreadyExists);
    EXPECT_EQ(folder_.Read(name), "something else");
    ASSERT_OK(Fetch({.overwrite = true}));
    EXPECT_TRUE(folder_.Read(name) == build_.files.at(kind));
  }
  EXPECT_EQ(Names().size(), 6u);
}

// Whoever looks into the folder takes metadata.json for the sign that the rest belongs together.
TEST_F(FetchBuildTest, AFailedOverwriteLeavesNoMetadataOverFilesOfTwoBuilds) {
  // The same in both, as orchestrators write it that name no build in it.
  const std::string metadata = build_.files.at(FileKind::kMetadata);
  ASSERT_OK(Fetch());
  build_ = test::MakeTestBuild({.seed = 7});
  for (const std::string& theirs : {metadata, std::string("{\"filesystem_only\": false}")}) {
    SeedAll(build_);
    Seed(FileKind::kMetadata, theirs);
    Remove(FileKind::kRootfs);  // Known only once memfile is there.
    EXPECT_EQ(CodeOf(Fetch({.overwrite = true})), absl::StatusCode::kDataLoss);
    EXPECT_TRUE(folder_.Read("out/memfile") == build_.files.at(FileKind::kMemfile));
    EXPECT_THAT(Names(), Not(testing::Contains("metadata.json")));
    SeedAll(build_);
    Seed(FileKind::kMetadata, theirs);
    ASSERT_OK(Fetch({.overwrite = true}));
    EXPECT_EQ(folder_.Read("out/metadata.json"), theirs);
    build_ = test::MakeTestBuild({.seed = 8});
  }
}

TEST_F(FetchBuildTest, AnotherBuildInTheFolderIsFoundBeforeAnythingIsAddedToIt) {
  const test::TestBuild full = build_;
  build_ = test::MakeTestBuild({.memfile_bytes = 0, .seed = 5});
  SeedAll(build_);
  ASSERT_OK(Fetch());
  build_ = full;
  const auto refused = Fetch();
  EXPECT_EQ(CodeOf(refused), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("metadata.json is there"));
  EXPECT_EQ(Names().size(), 3u);
}

TEST_F(FetchBuildTest, WhatAKilledFetchLeftGoesWithTheNextOneAndALiveOnesStays) {
  ASSERT_OK(Fetch());
  const std::string left = TemporaryName();
  folder_.Write("out/" + left, "half a memfile");
  folder_.Write("out/.tmp-notes", "someone's");
  const auto out = folder_.folder().OpenAt("out", O_RDONLY | O_DIRECTORY);
  ASSERT_OK(out);
  const auto live = TemporaryFile::Create(*out);
  ASSERT_OK(live);
  ASSERT_OK(Fetch());
  EXPECT_THAT(Names(), Not(testing::Contains(left)));
  EXPECT_THAT(Names(), testing::Contains(".tmp-notes"));
  EXPECT_EQ(Names().size(), 6u + 2u);
}

TEST_F(FetchBuildTest, ACancelledFetchLeavesNothing) {
  std::stop_source stop;
  FetchOptions options{.read = {.cancellation = stop.get_token()}};
  options.on_progress = [&](const FetchState& state) {
    if (state.kind == FileKind::kMemfile) stop.request_stop();
  };
  EXPECT_EQ(CodeOf(Fetch(options)), absl::StatusCode::kCancelled);
  EXPECT_TRUE(Names().empty());
}

TEST_F(FetchBuildTest, TheFolderHasToBeAbsoluteAndAFolder) {
  EXPECT_EQ(CodeOf(Fetch({.folder = "relative"})), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(Fetch({.folder = "/"})), absl::StatusCode::kInvalidArgument);
  folder_.Write("file", "");
  EXPECT_FALSE(Fetch({.folder = folder_.PathOf("file")}).ok());
  EXPECT_FALSE(Fetch({.folder = folder_.PathOf("file/below")}).ok());
  ASSERT_OK(Fetch({.folder = folder_.PathOf("a/b/c/")}));
}

}  // namespace
}  // namespace peerchunk
