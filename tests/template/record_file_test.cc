#include "template/record_file.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "peerchunk/base/crc32c.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/status_asserts.h"

namespace peerchunk {
namespace {

using namespace std::string_literals;
using test::CodeOf;

const BuildId kId = *BuildId::Parse("aaaaaaaa-0000-4000-8000-000000000001");
const BuildId kOther = *BuildId::Parse("bbbbbbbb-0000-4000-8000-000000000002");

std::shared_ptr<const FileChecksums> Sums(uint64_t size, uint64_t seed) {
  const std::string bytes = test::SampleBytes(size, seed);
  auto sums = std::make_shared<FileChecksums>();
  sums->size = size;
  sums->crc32c = Crc32c(bytes);
  for (uint64_t at = 0; at < size; at += FileChecksums::kBlockBytes) {
    sums->block_crc32c.push_back(
        Crc32c(std::string_view(bytes).substr(at, FileChecksums::kBlockBytes)));
  }
  return sums;
}

RecordedBuild SomeBuild() {
  RecordedBuild build;
  build.id = kId;
  build.status.state = BuildState::kUploading;
  build.reason = "it \"was\" slow\n\xff";
  build.upload_attempts = 7;
  build.metadata_version = 3;
  build.metadata_version_in_base = 2;
  build.paused_at = absl::FromUnixNanos(1'700'000'000'123'456'789);
  build.ancestors = {kOther};
  build.ancestor_sources[kOther] = {"10.0.0.1:7070", "10.0.0.2:7070"};
  build.base = "folder /srv/base";
  build.upload_token = "a token";
  build.files[FileKind::kMemfile] = {Sums(3 * kMiB + 17, 1), true};
  build.files[FileKind::kRootfs] = {Sums(0, 2), false};
  build.files[FileKind::kMetadata] = {Sums(100, 3), false};
  return build;
}

TEST(RecordFileTest, RoundTrip) {
  const RecordedBuild build = SomeBuild();
  auto decoded = DecodeRecord(EncodeRecord(build), kId);
  ASSERT_OK(decoded);
  EXPECT_TRUE(decoded->files[FileKind::kMemfile].checksums->block_crc32c.empty());
  ASSERT_OK(DecodeBlocks(EncodeBlocks(build), *decoded));
  EXPECT_EQ(decoded->id, build.id);
  EXPECT_EQ(decoded->status.state, build.status.state);
  EXPECT_EQ(decoded->reason, "it \"was\" slow\n\xEF\xBF\xBD");
  EXPECT_EQ(decoded->upload_attempts, 7u);
  EXPECT_EQ(decoded->metadata_version, 3u);
  EXPECT_EQ(decoded->metadata_version_in_base, 2u);
  EXPECT_EQ(decoded->paused_at, build.paused_at);
  EXPECT_EQ(decoded->ancestors, build.ancestors);
  EXPECT_EQ(decoded->ancestor_sources, build.ancestor_sources);
  EXPECT_EQ(decoded->base, build.base);
  EXPECT_EQ(decoded->upload_token, build.upload_token);
  ASSERT_EQ(decoded->files.size(), 3u);
  for (const auto& [kind, file] : build.files) {
    const FileRecord& got = decoded->files.at(kind);
    EXPECT_EQ(got.in_base, file.in_base);
    EXPECT_EQ(got.checksums->size, file.checksums->size);
    EXPECT_EQ(got.checksums->crc32c, file.checksums->crc32c);
    EXPECT_EQ(got.checksums->block_crc32c, file.checksums->block_crc32c);
  }
}

TEST(RecordFileTest, EveryStateRoundTrips) {
  RecordedBuild build = SomeBuild();
  for (const BuildState state :
       {BuildState::kLocal, BuildState::kUploading, BuildState::kDurable, BuildState::kFailed}) {
    build.status.state = state;
    EXPECT_EQ(DecodeRecord(EncodeRecord(build), kId)->status.state, state);
  }
}

TEST(RecordFileTest, ARecordCutAnywhereIsDamaged) {
  const std::string bytes = EncodeRecord(SomeBuild());
  for (size_t length = 0; length + 2 < bytes.size(); ++length) {
    EXPECT_EQ(CodeOf(DecodeRecord(bytes.substr(0, length), kId)), absl::StatusCode::kDataLoss);
  }
}

TEST(RecordFileTest, NoFlippedBitGoesUnseen) {
  const RecordedBuild build = SomeBuild();
  const std::string bytes = EncodeRecord(build);
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const char bit : {'\x01', '\x20'}) {
      std::string flipped = bytes;
      flipped[i] = static_cast<char>(flipped[i] ^ bit);
      const auto decoded = DecodeRecord(flipped, kId);
      // Only white space around the values may differ.
      if (decoded.ok()) {
        EXPECT_EQ(EncodeRecord(*decoded), bytes) << i;
      }
    }
  }
}

TEST(RecordFileTest, AnotherBuildsRecordIsDamaged) {
  EXPECT_EQ(CodeOf(DecodeRecord(EncodeRecord(SomeBuild()), kOther)), absl::StatusCode::kDataLoss);
}

TEST(RecordFileTest, ANewerFormatIsUnimplemented) {
  nlohmann::json outer = nlohmann::json::parse(EncodeRecord(SomeBuild()));
  for (const int format : {0, 3}) {
    outer["format"] = format;
    EXPECT_EQ(CodeOf(DecodeRecord(outer.dump(), kId)), absl::StatusCode::kUnimplemented);
  }
}

// A record whose checksum holds, but which says something else than what is expected.
std::string Resealed(const std::function<void(nlohmann::json&)>& change) {
  nlohmann::json outer = nlohmann::json::parse(EncodeRecord(SomeBuild()));
  change(outer["record"]);
  outer["crc32c"] = Crc32c(outer["record"].dump());
  return outer.dump();
}

TEST(RecordFileTest, TheFirstFormatIsRead) {
  nlohmann::json outer = nlohmann::json::parse(EncodeRecord(SomeBuild()));
  for (const char* added : {"base", "upload_token", "ancestor_sources"}) {
    outer["record"].erase(added);
  }
  outer["crc32c"] = Crc32c(outer["record"].dump());
  outer["format"] = 1;
  const auto decoded = DecodeRecord(outer.dump(), kId);
  ASSERT_OK(decoded);
  EXPECT_EQ(decoded->ancestors, SomeBuild().ancestors);
  EXPECT_EQ(decoded->base, "");
  EXPECT_EQ(decoded->upload_token, "");
}

TEST(RecordFileTest, AnyFieldMissingOrOfAnotherTypeIsDamaged) {
  const nlohmann::json fields = nlohmann::json::parse(EncodeRecord(SomeBuild()))["record"];
  for (auto field = fields.begin(); field != fields.end(); ++field) {
    const std::string key = field.key();
    EXPECT_EQ(CodeOf(DecodeRecord(Resealed([&](auto& record) { record.erase(key); }), kId)),
              absl::StatusCode::kDataLoss)
        << key;
    EXPECT_FALSE(DecodeRecord(Resealed([&](auto& record) {
                                record[key] = {{"x", 1}};
                              }),
                              kId)
                     .ok())
        << key;
  }
}

TEST(RecordFileTest, UnknownStateFileOrTimeIsDamaged) {
  for (const auto& change : std::vector<std::function<void(nlohmann::json&)>>{
           [](auto& record) { record["state"] = "RESTING"; },
           [](auto& record) { record["paused_at"] = "yesterday"; },
           [](auto& record) { record["files"]["other"] = record["files"]["memfile"]; },
           [](auto& record) { record["files"].erase("metadata.json"); },
           [](auto& record) { record["files"]["metadata.json"]["blocks"] = {1}; },
           [](auto& record) {
             record["files"]["metadata.json"]["blocks"] = {1, 2};
           }}) {
    EXPECT_EQ(CodeOf(DecodeRecord(Resealed(change), kId)), absl::StatusCode::kDataLoss);
  }
  EXPECT_FALSE(DecodeRecord(Resealed([](auto& record) { record["ancestors"] = {"x"}; }), kId).ok());
}

TEST(RecordFileTest, BlocksThatAreCutFlippedOrAnothersAreDamaged) {
  const RecordedBuild build = SomeBuild();
  const std::string bytes = EncodeBlocks(build);
  const RecordedBuild empty = *DecodeRecord(EncodeRecord(build), kId);
  for (size_t length = 0; length < bytes.size(); ++length) {
    RecordedBuild copy = empty;
    EXPECT_EQ(DecodeBlocks(bytes.substr(0, length), copy).code(), absl::StatusCode::kDataLoss);
  }
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string flipped = bytes;
    flipped[i] = static_cast<char>(flipped[i] ^ 4);
    RecordedBuild copy = empty;
    EXPECT_EQ(DecodeBlocks(flipped, copy).code(), absl::StatusCode::kDataLoss);
    EXPECT_TRUE(copy.files[FileKind::kMemfile].checksums->block_crc32c.empty());
  }
  RecordedBuild other = build;
  other.files[FileKind::kMemfile].checksums = Sums(3 * kMiB + 17, 99);
  RecordedBuild copy = empty;
  EXPECT_EQ(DecodeBlocks(EncodeBlocks(other), copy).code(), absl::StatusCode::kDataLoss);
  other = build;
  other.files.erase(FileKind::kRootfs);
  EXPECT_EQ(DecodeBlocks(EncodeBlocks(other), copy).code(), absl::StatusCode::kDataLoss);
  other = build;
  other.files[FileKind::kSnapfile] = {Sums(1, 1), false};
  EXPECT_EQ(DecodeBlocks(EncodeBlocks(other), copy).code(), absl::StatusCode::kDataLoss);
}

// Under a checksum that is right: each file but metadata once, and nothing behind them.
TEST(RecordFileTest, BlocksOfEachFileStandThereOnce) {
  const auto sealed = [](std::string file) {
    const uint32_t crc = Crc32c(file);
    for (int shift = 0; shift < 32; shift += 8) file += static_cast<char>(crc >> shift);
    return file;
  };
  const auto file = [](char kind, uint64_t count) {
    return std::string(1, kind) + static_cast<char>(count) + std::string(7 + 4 * count, '\0');
  };
  const auto list = [](const std::vector<std::string>& files) {
    std::string bytes = std::string("PCBLOCK1") + static_cast<char>(files.size()) + "\0\0\0"s;
    for (const std::string& one : files) bytes += one;
    return bytes;
  };
  RecordedBuild build;
  for (const FileKind kind : {FileKind::kMetadata, FileKind::kMemfile, FileKind::kRootfs}) {
    build.files[kind] = {Sums(0, 1), false};
  }
  const std::string memfile = file(5, 0), rootfs = file(6, 0), metadata = file(2, 0);
  EXPECT_OK(DecodeBlocks(sealed(list({memfile, rootfs})), build));
  for (const std::string& wrong :
       {list({memfile, rootfs}) + "x", list({memfile, memfile, rootfs}), list({memfile, memfile}),
        list({memfile, metadata}), list({memfile, rootfs, metadata})}) {
    EXPECT_EQ(CodeOf(DecodeBlocks(sealed(wrong), build)), absl::StatusCode::kDataLoss);
  }
}

TEST(RecordFileTest, EachVersionOfMetadataHasItsOwnName) {
  EXPECT_EQ(RecordedFileName(FileKind::kMetadata, 1), "metadata.json");
  EXPECT_EQ(RecordedFileName(FileKind::kMetadata, 2), "metadata.json.2");
  EXPECT_EQ(RecordedFileName(FileKind::kMemfile, 2), "memfile");
}

}  // namespace
}  // namespace peerchunk
