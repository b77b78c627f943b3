#pragma once

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/base/metrics.h"
#include "peerchunk/base/status.h"
#include "peerchunk/storage/gcs_storage.h"
#include "storage/gcs_core/gcs_provider.h"
#include "tests/support/gcs/fake_gcs.h"
#include "tests/support/gcs/fake_gcs_clock.h"
#include "tests/support/gcs/fake_gcs_stub.h"

namespace peerchunk::test {

// Uploads cut small, so that a few megabytes take every path, and short backoffs, so that virtual
// time passes slowly enough for streams side by side.
inline GcsTuning SmallGcsTuning() {
  GcsTuning tuning;
  tuning.one_shot_bytes = 512 * kKiB;
  tuning.parallel_bytes = 4 * kMiB;
  tuning.part_bytes = kMiB;
  tuning.segment_bytes = 4 * kMiB;
  return tuning;
}

// A provider over a FakeGcs in this process, on a virtual clock, without gRPC.
class GcsFixture {
 public:
  explicit GcsFixture(FakeGcsOptions fake_options = {}, GcsTuning tuning = SmallGcsTuning(),
                      std::string session_folder = "") {
    fake_options.while_stalled = [this] {
      if (while_stalled) while_stalled();
      clock.Advance(absl::Seconds(1));
    };
    fake = std::make_unique<FakeGcs>(std::move(fake_options));
    options.bucket = "bucket";
    options.prefix = "base";
    options.channels = 4;
    options.tuning = tuning;
    options.session_folder = std::move(session_folder);
    options.clock = &clock;
    options.metrics = &metrics;
    options.random = [this] {
      const MutexLock lock(mutex_);
      return random_();
    };
    Restart();
  }

  // As a new process would start: nothing but the session folder is left.
  void Restart() {
    storage.reset();
    const bool virtual_time = options.clock == &clock;
    // With a rate, lanes wait for time alone.
    Clock& of_lanes = virtual_time && bytes_per_second == 0 ? clock.of_lanes() : *options.clock;
    options.lanes = GcsUploadLanes::Create(lanes, bytes_per_second, of_lanes);
    const size_t watchdogs = clock.watchdogs();
    std::vector<std::unique_ptr<GcsStub>> stubs;
    for (size_t i = 0; i < options.channels; ++i) {
      stubs.push_back(MakeFakeGcsStub(*fake, options.bucket, std::to_string(i)));
    }
    absl::StatusOr<std::unique_ptr<GcsContext>> made = MakeGcsContext(options, std::move(stubs));
    EXPECT_TRUE(made.ok()) << made.status();
    context = made->get();
    storage = MakeGcsProvider(*std::move(made));
    if (virtual_time) clock.AwaitWatchdogs(watchdogs + 1);
  }

  std::unique_ptr<Seekable> Open(std::string_view path) {
    absl::StatusOr<std::unique_ptr<Seekable>> object = storage->OpenSeekable(path);
    EXPECT_TRUE(object.ok()) << object.status();
    return *std::move(object);
  }

  absl::StatusOr<ObjectStat> Put(std::string_view path, std::string_view bytes,
                                 const WriteOptions& write_options = {}) {
    PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<Blob> blob, storage->OpenBlob(path));
    return blob->Put(bytes, write_options);
  }

  absl::StatusOr<std::string> Read(std::string_view path, const ReadOptions& read_options = {}) {
    PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<Blob> blob, storage->OpenBlob(path));
    StringSink sink(256 * kMiB);
    PEERCHUNK_RETURN_IF_ERROR(blob->WriteTo(sink, read_options));
    return std::move(sink.bytes());
  }

  absl::StatusOr<std::string> ReadRange(std::string_view path, uint64_t offset, size_t length,
                                        const ReadOptions& read_options = {}) {
    std::string out(length, '\0');
    PEERCHUNK_ASSIGN_OR_RETURN(const size_t read,
                               Open(path)->ReadAt(offset, absl::MakeSpan(out), read_options));
    out.resize(read);
    return out;
  }

  void Inject(GcsRpc rpc, GcsFault::Kind kind,
              absl::StatusCode code = absl::StatusCode::kUnavailable, int after = 0) {
    fake->Inject({rpc, kind, code, after});
  }

  uint64_t CounterOf(const std::string& name, const MetricLabels& labels = {}) const {
    return metrics.CounterValue(name, labels);
  }

  // Leases that leave channel 0 the least busy one: nothing but a reason leads away from it.
  std::vector<std::unique_ptr<ChannelPool::Lease>> KeepOthersBusy() {
    std::vector<std::unique_ptr<ChannelPool::Lease>> leases;
    for (size_t i = 1; i < options.channels; ++i) {
      leases.push_back(std::make_unique<ChannelPool::Lease>(context->channels, i));
    }
    return leases;
  }

  std::function<void()> while_stalled;
  size_t lanes = 4;  // From the next Restart on, as is the rate.
  uint64_t bytes_per_second = 0;
  FakeGcsClock clock;
  Metrics metrics;
  std::unique_ptr<FakeGcs> fake;
  GcsStorageOptions options;
  GcsContext* context = nullptr;  // Of `storage`.
  std::unique_ptr<StorageProvider> storage;

 private:
  Mutex mutex_;
  std::mt19937_64 random_ PEERCHUNK_GUARDED_BY(mutex_){1};
};

}  // namespace peerchunk::test
