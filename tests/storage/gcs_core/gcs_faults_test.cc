#include <random>
#include <string>

#include <gtest/gtest.h>

#include "peerchunk/base/crc32c.h"
#include "tests/support/gcs/gcs_fixture.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"

namespace peerchunk::test {
namespace {

GcsTuning PatientTuning() {
  GcsTuning tuning = SmallGcsTuning();
  // Lanes side by side share one virtual clock, on which each one's stalls count for all.
  tuning.write_budget = absl::Hours(24);
  tuning.read_budget = absl::Hours(24);
  return tuning;
}

// Whatever goes wrong: the right bytes in the end, and nothing left behind.
TEST(GcsRandomFaultsTest, HundredSeedsEndWithTheRightObjects) {
  int faults = 0;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    FakeGcsOptions fake;
    fake.read_message_bytes = 64 * kKiB;
    fake.most_per_page = 2;
    GcsFixture gcs(fake, PatientTuning());
    gcs.fake->InjectAtRandom(seed, 0.3, 30);
    const uint64_t most[] = {300 * kKiB, 4 * kMiB, 9 * kMiB};
    const std::string bytes = SampleBytes(random() % most[seed % 3], seed);
    const TempDir files;
    files.Write("file", bytes);
    WriteOptions write;
    write.if_absent = true;
    if (random() % 2 == 0) write.crc32c = Crc32c(bytes);
    const absl::StatusOr<ObjectStat> stat =
        gcs.Open("a/object")->StoreFile(files.PathOf("file"), write);
    ASSERT_OK(stat);
    EXPECT_EQ(stat->size, bytes.size());
    EXPECT_EQ(stat->crc32c, Crc32c(bytes));
    EXPECT_EQ(gcs.fake->Names(), std::vector<std::string>{"base/a/object"});

    const absl::StatusOr<std::string> read = gcs.Read("a/object");
    ASSERT_OK(read);
    EXPECT_TRUE(*read == bytes);
    for (int i = 0; i < 5; ++i) {
      const uint64_t offset = random() % (bytes.size() + 1);
      const size_t length = random() % 300'000;
      const absl::StatusOr<std::string> range = gcs.ReadRange("a/object", offset, length);
      ASSERT_OK(range);
      EXPECT_TRUE(*range == bytes.substr(offset, length));
    }
    const absl::StatusOr<uint64_t> deleted = gcs.storage->DeleteObjectsWithPrefix("a/", {});
    ASSERT_OK(deleted);
    EXPECT_EQ(*deleted, 1u);
    EXPECT_TRUE(gcs.fake->Names().empty());
    EXPECT_TRUE(gcs.fake->violations().empty()) << testing::PrintToString(gcs.fake->violations());
    faults += gcs.fake->faults_injected();
  }
  EXPECT_GT(faults, 500) << "the faults did not happen";
}

}  // namespace
}  // namespace peerchunk::test
