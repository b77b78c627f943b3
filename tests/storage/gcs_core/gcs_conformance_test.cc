#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "peerchunk/base/status.h"
#include "tests/support/gcs/gcs_fixture.h"
#include "tests/support/storage_conformance.h"
#include "tests/support/temp_dir.h"

namespace peerchunk::test {
namespace {

// The real clock: the suite has deadlines of its own.
class InProcessFixture final : public StorageFixture {
 public:
  explicit InProcessFixture(bool through_file) : through_file_(through_file) {
    fixture_.options.clock = &Clock::Real();
    fixture_.Restart();
  }
  StorageProvider& storage() override { return *fixture_.storage; }
  absl::Status Seed(const std::string& path, std::string_view bytes) override {
    if (!through_file_) {
      fixture_.fake->Seed("base/" + path, bytes);
      return absl::OkStatus();
    }
    PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<Seekable> object,
                               fixture_.storage->OpenSeekable(path));
    return object->StoreFile(files_.Write("file", bytes), {}).status();
  }

 private:
  const bool through_file_;
  const TempDir files_;
  GcsFixture fixture_;
};

INSTANTIATE_TEST_SUITE_P(
    GcsInProcess, StorageConformanceTest,
    testing::Values(
        StorageConformanceParam{
            "Seeded", [] { return std::make_unique<InProcessFixture>(false); }, {}},
        StorageConformanceParam{
            "Uploaded", [] { return std::make_unique<InProcessFixture>(true); }, {}}),
    StorageConformanceName);

}  // namespace
}  // namespace peerchunk::test
