#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <utility>
#include <vector>

#include <absl/status/status.h>
#include <absl/time/time.h>

#include "peerchunk/base/build_id.h"
#include "peerchunk/base/clock.h"
#include "peerchunk/base/metrics.h"
#include "peerchunk/storage/storage.h"
#include "peerchunk/template/build_registry.h"

namespace peerchunk {

// Brings the builds that this node paused to the base, and says when they are durable. Per build:
// diffs and snapfile, then, once its ancestors are durable, headers, then metadata.json, whose
// presence means "complete"; one object after the other, each confirmed by size and CRC32C. A
// failed attempt is retried with full-jitter backoff without end. Objects confirmed before a
// restart are not sent again. Owned by the node; thread-safe.
class Uploader {
  class Impl;

 public:
  struct Options {
    size_t parallel_builds = 2;
    absl::Duration first_backoff = absl::Milliseconds(200);
    absl::Duration max_backoff = absl::Seconds(30);
    uint64_t max_attempts = 0;  // Failed attempts after which a build is FAILED; 0: no limit.
    Clock* clock = &Clock::Real();
    Metrics* metrics = nullptr;
    uint64_t seed = 0;  // Of the jitter.
    // Says whether a build that this node did not pause is durable; asked before a child's headers
    // are written. False: not yet. DataLoss: it is lost, and the child is FAILED. Any other
    // error counts as "not yet" and is shown as the reason. The token asks it to end soon.
    std::function<absl::StatusOr<bool>(const BuildId&, const std::stop_token&)> ancestor_is_durable;
    std::function<void(const BuildId&)> on_durable;
    // As on_durable, and also when newer metadata of a durable build was confirmed.
    std::function<void(const BuildId&)> on_confirmed;
  };

  // Keeps a build's upload from going on: nothing of it is under way while one is held, so its
  // objects may be deleted. Afterwards it goes on, if the build is still recorded. Move-only; must
  // not outlive the uploader.
  class Hold {
   public:
    Hold(Hold&& other) noexcept : impl_(std::exchange(other.impl_, nullptr)), id_(other.id_) {}
    Hold& operator=(Hold&&) = delete;
    ~Hold();

   private:
    friend class Uploader;
    Hold(Impl* impl, const BuildId& id) : impl_(impl), id_(id) {}
    Impl* impl_;
    BuildId id_;
  };

  // Starts its threads and queues every recorded build that is not durable, or whose metadata is
  // newer than the base's. `registry` and `base` are borrowed and outlive it.
  static absl::StatusOr<std::unique_ptr<Uploader>> Start(BuildRegistry* registry,
                                                         StorageProvider* base, Options options);
  // As Shutdown.
  ~Uploader();
  // Ends what is under way, to be gone on with after the next start: an object that was begun is
  // suspended (WriteOptions::suspension), so a store that can goes on where it was. What is queued
  // afterwards stays as it is. Not beside another call of it.
  void Shutdown();

  // Queues a build; a build already queued is not queued twice, and a new version of its metadata
  // is noticed.
  void Enqueue(const BuildId& id);

  // Stops a build's upload, and waits until nothing of it is under way.
  Hold Stop(const BuildId& id);

  // Waits until nothing is queued or under way, or the deadline. Returns what the base does not
  // hold: builds that are not durable, or have newer metadata.
  std::vector<BuildId> WaitIdle(absl::Time deadline);

 private:
  explicit Uploader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace peerchunk
