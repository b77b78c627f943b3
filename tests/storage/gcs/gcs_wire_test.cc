#include <atomic>
#include <functional>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/storage/gcs_storage.h"
#include "tests/support/gcs/fake_gcs.h"
#include "tests/support/gcs/fake_gcs_clock.h"
#include "tests/support/gcs/fake_gcs_server.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/status_asserts.h"
#include "tests/support/storage_conformance.h"
#include "tests/support/temp_dir.h"

namespace peerchunk::test {
namespace {

using Code = absl::StatusCode;
using Kind = GcsFault::Kind;

// The real provider over real connections to a fake service, on a virtual clock unless told
// otherwise.
class Wire {
 public:
  explicit Wire(FakeGcsOptions fake_options = {}, GcsTuning tuning = {}, Clock* clock = nullptr,
                size_t lanes = 4)
      : fake_(WithClock(std::move(fake_options))), server_(fake_) {
    options_.bucket = "bucket";
    options_.prefix = "base";
    options_.endpoint = server_.address();
    options_.insecure_plaintext = true;
    options_.channels = 4;
    options_.tuning = tuning;
    options_.clock = clock == nullptr ? &clock_ : clock;
    options_.metrics = &metrics_;
    Clock& of_lanes = clock == nullptr ? clock_.of_lanes() : *clock;
    options_.lanes = GcsUploadLanes::Create(lanes, 0, of_lanes);
    absl::StatusOr<std::unique_ptr<StorageProvider>> storage = GcsStorageProvider::Open(options_);
    EXPECT_OK(storage);
    storage_ = *std::move(storage);
    if (clock == nullptr) clock_.AwaitWatchdogs(1);
  }

  FakeGcs& fake() { return fake_; }
  StorageProvider& storage() { return *storage_; }
  GcsStorageOptions& options() { return options_; }
  FakeGcsClock& clock() { return clock_; }
  uint64_t CounterOf(const std::string& name, const MetricLabels& labels = {}) const {
    return metrics_.CounterValue(name, labels);
  }

  absl::StatusOr<std::string> ReadRange(const std::string& path, uint64_t offset, size_t length,
                                        const ReadOptions& read_options = {}) {
    PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<Seekable> object,
                               storage_->OpenSeekable(path));
    std::string out(length, '\0');
    PEERCHUNK_ASSIGN_OR_RETURN(const size_t read,
                               object->ReadAt(offset, absl::MakeSpan(out), read_options));
    out.resize(read);
    return out;
  }

 private:
  FakeGcsOptions WithClock(FakeGcsOptions options) {
    if (!options.while_stalled)
      options.while_stalled = [this] { clock_.Advance(absl::Seconds(1)); };
    return options;
  }

  FakeGcsClock clock_;
  Metrics metrics_;
  FakeGcs fake_;
  FakeGcsServer server_;
  GcsStorageOptions options_;
  std::unique_ptr<StorageProvider> storage_;
};

GcsTuning SmallPieces() {
  GcsTuning tuning;
  tuning.one_shot_bytes = 512 * kKiB;
  tuning.parallel_bytes = 4 * kMiB;
  tuning.part_bytes = kMiB;
  // Lanes side by side share one virtual clock, on which each one's stalls count for all.
  tuning.write_budget = absl::Hours(24);
  tuning.read_budget = absl::Hours(24);
  return tuning;
}

// --- Conformance
// -------------------------------------------------------------------------------------

class WireFixture final : public StorageFixture {
 public:
  explicit WireFixture(bool through_file) : through_file_(through_file) {}
  ~WireFixture() override {
    EXPECT_TRUE(wire_.fake().violations().empty())
        << testing::PrintToString(wire_.fake().violations());
  }
  StorageProvider& storage() override { return wire_.storage(); }
  absl::Status Seed(const std::string& path, std::string_view bytes) override {
    if (!through_file_) {
      wire_.fake().Seed("base/" + path, bytes);
      return absl::OkStatus();
    }
    PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<Seekable> object,
                               wire_.storage().OpenSeekable(path));
    return object->StoreFile(files_.Write("file", bytes), {}).status();
  }

 private:
  const bool through_file_;
  const TempDir files_;
  Wire wire_{{}, SmallPieces(), &Clock::Real()};
};

INSTANTIATE_TEST_SUITE_P(
    GcsOverTheWire, StorageConformanceTest,
    testing::Values(
        StorageConformanceParam{"Seeded", [] { return std::make_unique<WireFixture>(false); }, {}},
        StorageConformanceParam{
            "Uploaded", [] { return std::make_unique<WireFixture>(true); }, {}}),
    StorageConformanceName);

// --- Opening
// -----------------------------------------------------------------------------------------

TEST(GcsOpenTest, MissingBucketFails) {
  Wire wire;
  wire.options().bucket = "another-bucket";
  const absl::Status status = GcsStorageProvider::Open(wire.options()).status();
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_NE(status.message().find("create it or correct --base"), std::string::npos) << status;
}

TEST(GcsOpenTest, ForbiddenBucketFails) {
  FakeGcs fake({.lists = false});
  FakeGcsServer server(fake);
  GcsStorageOptions options;
  options.bucket = "bucket";
  options.endpoint = server.address();
  options.insecure_plaintext = true;
  EXPECT_EQ(CodeOf(GcsStorageProvider::Open(options)), Code::kPermissionDenied);
}

TEST(GcsOpenTest, ServiceOutOfReachOpensAllTheSame) {
  std::string address;
  {
    FakeGcs fake;
    address = FakeGcsServer(fake).address();
  }
  FakeGcsClock clock;
  GcsStorageOptions options;
  options.bucket = "bucket";
  options.endpoint = address;
  options.insecure_plaintext = true;
  options.clock = &clock;
  const absl::StatusOr<std::unique_ptr<StorageProvider>> storage =
      GcsStorageProvider::Open(options);
  ASSERT_OK(storage);
  EXPECT_EQ((*storage)->Describe(), "gs://bucket");
  EXPECT_EQ(CodeOf((*(*storage)->OpenBlob("a/b"))->Exists({})), Code::kUnavailable);
}

// --- What only the wire can show
// ---------------------------------------------------------------------

TEST(GcsWireTest, ChannelsHaveConnectionsOfTheirOwn) {
  Wire wire;
  wire.fake().Seed("base/a/object", "bytes");
  for (int i = 0; i < 12; ++i) ASSERT_OK(wire.ReadRange("a/object", 0, 5));
  std::set<std::string> connections;
  for (const FakeCallRecord& call : wire.fake().calls()) connections.insert(call.connection);
  EXPECT_EQ(connections.size(), 4u);
  EXPECT_TRUE(wire.fake().violations().empty());
}

TEST(GcsWireTest, ConnectionThatFreezesDoesNotSlowTheOthers) {
  std::function<void()> tick;
  FakeGcsOptions fake;
  fake.while_stalled = [&] { tick(); };
  Wire wire(fake);
  // No further than it takes to see the stall: a channel is under suspicion for seconds only.
  const absl::Time enough = wire.clock().Now() + absl::Seconds(10);
  tick = [&] {
    const bool seen = wire.CounterOf("peerchunk_gcs_stalls_total", {{"reason", "first_byte"}}) > 0;
    if (!seen && wire.clock().Now() < enough) wire.clock().Advance(absl::Seconds(1));
  };
  const std::string bytes = SampleBytes(100'000, 1);
  wire.fake().Seed("base/a/object", bytes);
  for (int i = 0; i < 8; ++i) ASSERT_OK(wire.ReadRange("a/object", 0, 5));
  const std::string frozen = wire.fake().calls().back().connection;
  wire.fake().Freeze(frozen);
  const size_t before = wire.fake().calls().size();
  for (int i = 0; i < 40; ++i) {
    const absl::StatusOr<std::string> read = wire.ReadRange("a/object", 0, bytes.size());
    ASSERT_OK(read);
    EXPECT_TRUE(*read == bytes);
  }
  const std::vector<FakeCallRecord> calls = wire.fake().calls();
  size_t on_frozen = 0;
  for (size_t i = before; i < calls.size(); ++i) on_frozen += calls[i].connection == frozen ? 1 : 0;
  EXPECT_EQ(on_frozen, 1u);
}

TEST(GcsWireTest, MessagesOverGrpcsOwnLimitAreRead) {
  FakeGcsOptions options;
  options.read_message_bytes = 16 * kMiB;
  Wire wire(options);
  const std::string bytes(16 * kMiB, 'x');
  wire.fake().Seed("base/a/object", bytes);
  const absl::StatusOr<std::string> read = wire.ReadRange("a/object", 0, bytes.size());
  ASSERT_OK(read);
  EXPECT_TRUE(*read == bytes);
}

TEST(GcsWireTest, MessageOverOurLimitIsFatal) {
  FakeGcsOptions options;
  options.read_message_bytes = 80 * kMiB;
  Wire wire(options);
  wire.fake().Seed("base/a/object", std::string(65 * kMiB, 'x'));
  EXPECT_EQ(CodeOf(wire.ReadRange("a/object", 0, 65 * kMiB)), Code::kResourceExhausted);
  EXPECT_EQ(wire.fake().CallsOf(GcsRpc::kReadObject), 1u);
}

TEST(GcsWireTest, CancellationReachesAStalledRead) {
  std::stop_source stop;
  FakeGcsOptions fake;
  fake.while_stalled = [&] { stop.request_stop(); };
  Wire wire(fake, {}, &Clock::Real());
  wire.fake().Seed("base/a/object", SampleBytes(5 * kMiB, 1));
  wire.fake().Inject({GcsRpc::kReadObject, Kind::kStall, Code::kOk, 1});
  ReadOptions options;
  options.cancellation = stop.get_token();
  EXPECT_EQ(CodeOf(wire.ReadRange("a/object", 0, 5 * kMiB, options)), Code::kCancelled);
}

TEST(GcsWireTest, CancellationReachesAStalledUpload) {
  std::stop_source stop;
  FakeGcsOptions fake;
  fake.while_stalled = [&] { stop.request_stop(); };
  // One lane: with more, the cancelled call of another part could still end well at the server,
  // behind the deletion of the parts.
  Wire wire(fake, SmallPieces(), &Clock::Real(), /*lanes=*/1);
  wire.fake().Inject({GcsRpc::kWriteObject, Kind::kNone});
  wire.fake().Inject({GcsRpc::kWriteObject, Kind::kStall, Code::kOk, 0});
  WriteOptions options;
  options.cancellation = stop.get_token();
  const std::string bytes = SampleBytes(9 * kMiB, 1);
  EXPECT_EQ(CodeOf((*wire.storage().OpenBlob("a/object"))->Put(bytes, options)), Code::kCancelled);
  EXPECT_TRUE(wire.fake().Names().empty());
}

TEST(GcsWireTest, DestroyedReaderEndsItsStreamAtTheServer) {
  std::atomic<int> ticks = 0;
  FakeGcsOptions fake;
  fake.while_stalled = [&] { ++ticks; };
  Wire wire(fake, {}, &Clock::Real());
  wire.fake().Seed("base/a/object", SampleBytes(5 * kMiB, 1));
  wire.fake().Inject({GcsRpc::kReadObject, Kind::kStall, Code::kOk, 1});
  {
    const auto object = wire.storage().OpenSeekable("a/object");
    const auto reader = (*object)->OpenRangeReader(0, 5 * kMiB, {});
    ASSERT_OK(reader);
    ASSERT_OK((*reader)->Next());
    while (ticks == 0) std::this_thread::yield();
  }
  // The server's shutdown waits for its handlers; one that still stalled would hang this test.
}

// --- Faults
// ------------------------------------------------------------------------------------------

TEST(GcsWireFaultsTest, HundredSeedsEndWithTheRightObjects) {
  int faults = 0;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed * 7919);
    FakeGcsOptions fake;
    fake.read_message_bytes = 64 * kKiB;
    Wire wire(fake, SmallPieces());
    wire.fake().InjectAtRandom(seed, 0.3, 20);
    const uint64_t most[] = {300 * kKiB, 3 * kMiB, 6 * kMiB};
    const std::string bytes = SampleBytes(random() % most[seed % 3], seed);
    const TempDir files;
    files.Write("file", bytes);
    WriteOptions write;
    write.if_absent = true;
    write.crc32c = Crc32c(bytes);
    const auto object = wire.storage().OpenSeekable("a/object");
    ASSERT_OK(object);
    ASSERT_OK((*object)->StoreFile(files.PathOf("file"), write));
    EXPECT_EQ(wire.fake().Names(), std::vector<std::string>{"base/a/object"});
    const absl::StatusOr<std::string> read = wire.ReadRange("a/object", 0, bytes.size() + 1);
    ASSERT_OK(read);
    EXPECT_TRUE(*read == bytes);
    EXPECT_TRUE(wire.fake().violations().empty())
        << testing::PrintToString(wire.fake().violations());
    faults += wire.fake().faults_injected();
  }
  EXPECT_GT(faults, 200) << "the faults did not happen";
}

}  // namespace
}  // namespace peerchunk::test
