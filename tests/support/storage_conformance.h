#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/storage/storage.h"

namespace peerchunk::test {

// A provider under test with what it needs around it (folder, fake server, peer, wire), and a way
// to put objects where its readers find them. Made anew for each test.
class StorageFixture {
 public:
  virtual ~StorageFixture() = default;
  virtual StorageProvider& storage() = 0;
  // Makes `bytes` the object at `path`, replacing what was there when the provider can replace.
  virtual absl::Status Seed(const std::string& path, std::string_view bytes) = 0;
};

// What of the contract a provider in its surroundings can show. Everything, unless said otherwise.
struct StorageCapabilities {
  bool read_only = false;      // Put, StoreFile and deletes do not act on what is read here.
  bool replaces = true;        // An object may be seeded again with other bytes.
  bool knows_crc = true;       // Stat has the CRC32C of what was seeded.
  bool keeps_metadata = true;  // User metadata of a write is found by Stat.
  bool pins_versions = true;   // Stat's version can be given back in ReadOptions::version.
  bool any_path = true;        // Else only the file names of build() exist: see below.
};

// The build that the suite's objects belong to. It uses "<build>/snapfile" as a blob and
// "<build>/memfile" as a seekable object; with any_path also others.
inline constexpr char kConformanceBuild[] = "6f1c2a52-1111-4222-8333-0123456789ab";

struct StorageConformanceParam {
  std::string name;  // Letters and digits.
  std::function<std::unique_ptr<StorageFixture>()> make;
  StorageCapabilities capabilities;
};
inline void PrintTo(const StorageConformanceParam& param, std::ostream* out) { *out << param.name; }

// The contract of storage.h as tests, for every provider. In a test file:
//   INSTANTIATE_TEST_SUITE_P(Gcs, StorageConformanceTest,
//                            testing::Values(StorageConformanceParam{"Fake", MakeFixture, {}}),
//                            StorageConformanceName);
class StorageConformanceTest : public testing::TestWithParam<StorageConformanceParam> {
 protected:
  void SetUp() override;

  const StorageCapabilities& capabilities() const { return GetParam().capabilities; }
  StorageProvider& storage() { return fixture_->storage(); }
  void Seed(const std::string& path, std::string_view bytes);
  std::unique_ptr<Blob> OpenBlob(std::string_view path);
  std::unique_ptr<Seekable> OpenSeekable(std::string_view path);
  // The whole object, read each way; they must agree.
  absl::StatusOr<std::string> ReadBlob(std::string_view path, const ReadOptions& options = {});
  absl::StatusOr<std::string> ReadRange(std::string_view path, uint64_t offset, uint64_t length,
                                        const ReadOptions& options = {});

  std::unique_ptr<StorageFixture> fixture_;
};

// Names the instances, and makes the linker keep the suite: an instance without it has no tests.
std::string StorageConformanceName(const testing::TestParamInfo<StorageConformanceParam>& info);

}  // namespace peerchunk::test
