#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include <absl/container/flat_hash_map.h>

#include "peerchunk/base/file.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/header/header.h"
#include "peerchunk/template/template_cache.h"

namespace peerchunk {

class LayerUpstream;

// Where one template's layers lie, and how much of each it maps. Shared by the template's devices
// and the cache. Thread-safe.
class LayerSources {
 public:
  explicit LayerSources(BuildSources sources) : sources_(std::move(sources)) {}

  // More addresses to choose from, after those that are known.
  void Add(const BuildSources& more);
  std::vector<std::string> For(const BuildId& build) const;

  // Before the template is published: what its header for `diff` maps.
  void SetMapped(FileKind diff, const Header& header);
  bool Maps(const BuildFileId& layer) const { return required_.contains(layer); }
  uint64_t RequiredBytes(const BuildFileId& layer) const;

 private:
  mutable Mutex mutex_;
  BuildSources sources_ PEERCHUNK_GUARDED_BY(mutex_);
  absl::flat_hash_map<BuildFileId, uint64_t> required_;  // Fixed once published.
};

// Opens the diffs of layers: a build paused here from its own files, every other one as a chunk
// cache over the provider of its build. Part of a TemplateCache; thread-safe.
class Layers {
 public:
  // Borrowed: `options` (the cache's), `store`. `folder` is for chunk caches.
  Layers(const TemplateCache::Options* options, File folder, DiffStore* store, std::stop_token stop)
      : options_(options), folder_(std::move(folder)), store_(store), stop_(std::move(stop)) {}

  // A pin of the layer; waits within `options` only. One that is open already is read from these
  // sources, too, from then on.
  absl::StatusOr<std::shared_ptr<BuildFile>> Open(const BuildFileId& layer,
                                                  std::shared_ptr<LayerSources> sources,
                                                  const ReadOptions& options);
  // A recorded diff as a pin, kept in the store from now on.
  absl::StatusOr<std::shared_ptr<BuildFile>> OpenRecorded(const BuildFileId& id);
  // Pins the files of a build paused here, or lets them go, as its record says now.
  void UpdatePins(const BuildId& build);
  // Has those of a published template's layers that are open read from its sources, too.
  void AddSources(const LayerSources& sources);
  // Has a foreign layer opened, without waiting. False when that failed a moment ago.
  bool StartOpen(const BuildFileId& layer, std::shared_ptr<LayerSources> sources);

 private:
  DiffStore::Opener Opener(const BuildFileId& layer, std::shared_ptr<LayerSources> sources);
  absl::StatusOr<std::shared_ptr<BuildFile>> OpenForeign(const BuildFileId& layer,
                                                         const LayerSources& sources);
  std::shared_ptr<LayerUpstream> NewUpstream(const BuildFileId& layer);
  absl::StatusOr<File> NewCacheFile(const BuildFileId& layer);

  const TemplateCache::Options* const options_;
  const File folder_;
  DiffStore* const store_;
  const std::stop_token stop_;
  std::atomic<uint64_t> next_file_{0};

  Mutex mutex_;
  absl::flat_hash_map<BuildFileId, absl::Time> failed_at_ PEERCHUNK_GUARDED_BY(mutex_);
  // Of the layers that are open, and of some that were.
  absl::flat_hash_map<BuildFileId, std::weak_ptr<LayerUpstream>> upstreams_
      PEERCHUNK_GUARDED_BY(mutex_);
};

}  // namespace peerchunk
