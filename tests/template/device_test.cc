#include <atomic>
#include <map>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "peerchunk/template/template.h"
#include "tests/support/fake_build_file.h"
#include "tests/support/status_asserts.h"
#include "tests/support/test_build.h"

namespace peerchunk::test {
namespace {

class DeviceTest : public testing::Test {
 protected:
  DeviceTest() {
    for (const TestBuild* build : {&base_, &child_, &grandchild_}) {
      files_[build->id] = std::make_shared<FakeBuildFile>(
          BuildFileId{build->id, FileKind::kMemfile}, build->files.at(FileKind::kMemfile));
    }
  }

  std::unique_ptr<Device> Make(const TestBuild& build) {
    auto header = Header::Decode(build.files.at(FileKind::kMemfileHeader));
    EXPECT_OK(header);
    return std::make_unique<Device>(
        FileKind::kMemfile, std::make_shared<const Header>(*std::move(header)),
        [this](const BuildFileId& layer, const ReadOptions&) { return Open(layer); });
  }
  absl::StatusOr<std::shared_ptr<BuildFile>> Open(const BuildFileId& layer) {
    ++opens_;
    EXPECT_EQ(layer.kind, FileKind::kMemfile);
    if (!open_error_.ok()) return open_error_;
    return std::shared_ptr<BuildFile>(files_.at(layer.build));
  }
  static absl::StatusOr<std::string> Read(Device& device, uint64_t offset, uint64_t length) {
    std::string out(length, '?');
    PEERCHUNK_ASSIGN_OR_RETURN(const size_t got, device.ReadAt(offset, absl::MakeSpan(out), {}));
    out.resize(got);
    return out;
  }

  const TestBuild base_ = MakeTestBuild({.seed = 1});
  const TestBuild child_ = MakeTestBuild({.seed = 2, .parent = &base_});
  const TestBuild grandchild_ = MakeTestBuild({.seed = 3, .parent = &child_});
  std::map<BuildId, std::shared_ptr<FakeBuildFile>> files_;
  std::atomic<int> opens_ = 0;
  absl::Status open_error_;
};

TEST_F(DeviceTest, ShowsEveryGenerationWhateverIsRead) {
  std::mt19937 random(1);
  for (const TestBuild* build : {&base_, &child_, &grandchild_}) {
    const auto device = Make(*build);
    EXPECT_EQ(device->size(), build->memfile.size());
    EXPECT_EQ(*Read(*device, 0, device->size() + 5), build->memfile);
    for (int i = 0; i < 200; ++i) {
      const uint64_t offset = random() % (device->size() + 1);
      const uint64_t length = random() % 100'000;
      EXPECT_EQ(*Read(*device, offset, length), build->memfile.substr(offset, length));
    }
  }
}

TEST_F(DeviceTest, EdgesOfTheDevice) {
  const auto device = Make(base_);
  EXPECT_EQ(*Read(*device, device->size(), 10), "");
  EXPECT_EQ(CodeOf(Read(*device, device->size() + 1, 0)), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(CodeOf(Read(*device, UINT64_MAX, 2)), absl::StatusCode::kOutOfRange);
}

TEST_F(DeviceTest, LayersAreOpenedWhenFirstReadAndOnce) {
  const auto device = Make(grandchild_);
  EXPECT_EQ(opens_, 0);
  for (int i = 0; i < 3; ++i) EXPECT_OK(Read(*device, 0, device->size()));
  EXPECT_EQ(opens_, 3);
}

TEST_F(DeviceTest, ALayerThatCannotBeOpenedIsTriedAgain) {
  const auto device = Make(base_);
  open_error_ = absl::UnavailableError("planted");
  EXPECT_EQ(CodeOf(Read(*device, 0, device->size())), absl::StatusCode::kUnavailable);
  open_error_ = absl::OkStatus();
  EXPECT_EQ(*Read(*device, 0, device->size()), base_.memfile);
}

TEST_F(DeviceTest, ZerosOfTheMappingNeedNoSourceAndAreCounted) {
  const auto device = Make(base_);
  uint64_t zeros = 0;
  for (const Mapping& mapping : device->header().mappings()) {
    if (!mapping.is_zero()) continue;
    open_error_ = absl::UnavailableError("not needed");
    EXPECT_EQ(*Read(*device, mapping.offset, mapping.length), std::string(mapping.length, '\0'));
    zeros += mapping.length;
  }
  EXPECT_GT(zeros, 0u);
  EXPECT_EQ(device->zero_bytes_read(), zeros);
  EXPECT_EQ(opens_, 0);
}

TEST_F(DeviceTest, ADiffShorterThanTheHeaderMapsIsDataLoss) {
  const std::string& bytes = base_.files.at(FileKind::kMemfile);
  files_[base_.id] = std::make_shared<FakeBuildFile>(BuildFileId{base_.id, FileKind::kMemfile},
                                                     bytes.substr(0, bytes.size() - kPageBytes));
  EXPECT_EQ(CodeOf(Read(*Make(base_), 0, base_.memfile.size())), absl::StatusCode::kDataLoss);
  files_[base_.id] = std::make_shared<FakeBuildFile>(BuildFileId{base_.id, FileKind::kMemfile},
                                                     bytes.substr(0, bytes.size() - 1));
  EXPECT_EQ(CodeOf(Read(*Make(base_), 0, base_.memfile.size())), absl::StatusCode::kDataLoss)
      << "not zeros in place of what was cut off";
  files_[base_.id] = std::make_shared<FakeBuildFile>(BuildFileId{base_.id, FileKind::kMemfile}, "");
  EXPECT_EQ(CodeOf(Read(*Make(base_), 0, base_.memfile.size())), absl::StatusCode::kDataLoss)
      << "not OutOfRange, which would be the reader's fault";
}

TEST_F(DeviceTest, ADeviceThatEndsWithinAPageReadsToItsEnd) {
  HeaderMetadata metadata;
  metadata.block_size = kPageBytes;
  metadata.size = kPageBytes + 100;
  metadata.build_id = metadata.base_build_id = base_.id;
  files_[base_.id] = std::make_shared<FakeBuildFile>(BuildFileId{base_.id, FileKind::kMemfile},
                                                     std::string(kPageBytes + 100, 'b'));
  Device device(FileKind::kMemfile,
                std::make_shared<const Header>(*Header::CreateIdentity(metadata)),
                [this](const BuildFileId& layer, const ReadOptions&) { return Open(layer); });
  EXPECT_EQ(*Read(device, 0, 10'000), std::string(kPageBytes + 100, 'b'));
  EXPECT_EQ(*Read(device, kPageBytes + 80, 100), std::string(20, 'b'));
}

TEST_F(DeviceTest, ALayerThatLostBytesIsReplacedByAnotherCopy) {
  const auto device = Make(base_);
  const auto spoilt = files_[base_.id];
  EXPECT_OK(Read(*device, 0, device->size()));
  spoilt->read_error = absl::DataLossError("planted");
  EXPECT_EQ(CodeOf(Read(*device, 0, device->size())), absl::StatusCode::kDataLoss)
      << "there is no other copy";
  files_[base_.id] = std::make_shared<FakeBuildFile>(BuildFileId{base_.id, FileKind::kMemfile},
                                                     base_.files.at(FileKind::kMemfile));
  EXPECT_EQ(*Read(*device, 0, device->size()), base_.memfile);
  const int opens = opens_;
  EXPECT_EQ(*Read(*device, 0, device->size()), base_.memfile);
  EXPECT_EQ(opens_, opens) << "and stays replaced";
}

TEST_F(DeviceTest, ManyReadersShareADevice) {
  const auto device = Make(grandchild_);
  std::vector<std::thread> readers;
  for (uint32_t seed = 0; seed < 4; ++seed) {
    readers.emplace_back([&, seed] {
      std::mt19937 random(seed);
      for (int i = 0; i < 50; ++i) {
        const uint64_t offset = random() % device->size();
        EXPECT_EQ(*Read(*device, offset, 50'000), grandchild_.memfile.substr(offset, 50'000));
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
}

}  // namespace
}  // namespace peerchunk::test
