#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <absl/status/statusor.h>

#include "peerchunk/base/file_head.h"
#include "peerchunk/build/chunk_cache.h"
#include "peerchunk/build/diff_store.h"
#include "peerchunk/template/build_registry.h"
#include "peerchunk/template/template.h"

namespace peerchunk {

// Where the layers of a build lie, as addresses of nodes ("10.1.2.3:7070", most preferred first).
struct BuildSources {
  std::vector<std::string> default_addresses;
  std::map<BuildId, std::vector<std::string>> by_build;  // Layers that lie elsewhere.

  const std::vector<std::string>& For(const BuildId& build) const;
};

// A provider through which one build's objects are read: from its sources first, then the base.
using ProviderFactory = std::function<absl::StatusOr<std::shared_ptr<StorageProvider>>(
    const BuildId& build, const std::vector<std::string>& source_addresses)>;

// What this node can say of one file right now, with a pin when it can serve it.
struct ServedFile {
  FileHead head;
  std::shared_ptr<BuildFile> file;  // Set exactly when head.availability is kAvailable.
};

// The templates in use on this node, and its front door to every byte of a build: paused here
// (through the registry) or loaded from sources and base (through the provider factory). A look-up
// is a pin; eviction drops the cache's own reference only. A failed load wakes everyone who waited
// and is not remembered. Thread-safe.
class TemplateCache {
 public:
  struct Options {
    // For chunk caches, created when missing. Their files have no name once they are open: whatever
    // ends the process, the disk space comes back.
    std::string cache_folder;
    uint64_t cache_capacity_bytes =
        UINT64_MAX;  // Of disk, over chunk caches and all of builds paused here.
    // Loaded ones; beyond it those that nobody holds are dropped, the longest unused first.
    size_t max_templates = 256;
    uint64_t max_header_bytes = kMaxHeaderFileBytes;
    uint64_t max_snapfile_bytes = kMaxSnapfileBytes;
    uint64_t max_metadata_bytes = kMaxMetadataBytes;
    // A load, and the opening of a layer, belong to no caller: their own limit.
    absl::Duration load_timeout = absl::Seconds(60);
    ChunkCacheOptions chunks;
    ProviderFactory open_provider;
    BuildRegistry* registry = nullptr;  // Borrowed; outlives the cache.
    // Loads the parts of a template in parallel and opens layers; borrowed, outlives the cache.
    Executor* executor = nullptr;
    // Fetches working sets; borrowed, outlives the cache; not `executor`, whose threads it would
    // take from loads. Null: nothing is fetched that nobody has read.
    Executor* working_set_executor = nullptr;
    // Keeps this node's own traces of builds paused elsewhere; created when missing; empty: none.
    std::string trace_folder;
    // Puts what peers read first of builds paused here into their metadata.
    bool record_served = false;
    // A build's metadata was replaced so; runs on the thread of SaveTraces. May be empty.
    std::function<void(const BuildId&)> on_metadata_replaced;
    Clock* clock = &Clock::Real();
    Metrics* metrics = nullptr;
  };
  static absl::StatusOr<std::unique_ptr<TemplateCache>> Open(Options options);
  ~TemplateCache();

  // The build, loaded and pinned: headers, snapfile and metadata in parallel, then devices over
  // layers that are opened when first read. A build paused here is loaded from its own files. The
  // load belongs to no caller. Sources named later, for this build or another one that maps the
  // same layer, are added to those that are known, also for layers that are open. The first call
  // for a loaded build begins to fetch its working set in the background: as this node saw it, else
  // as its metadata has it. Unimplemented: a header maps a diff that is stored compressed.
  absl::StatusOr<std::shared_ptr<Template>> GetTemplate(const BuildId& id,
                                                        const BuildSources& sources,
                                                        const ReadOptions& options);
  // A pin of what is loaded, or null; not a use. Never blocks on I/O.
  std::shared_ptr<Template> GetCachedTemplate(const BuildId& id);

  // Makes a build that was just paused here (BuildRegistry::Add) readable as a template at once.
  absl::StatusOr<std::shared_ptr<Template>> AddSnapshot(const BuildId& id,
                                                        const ReadOptions& options);

  // Drops the cache's own references to a build, and its trace; readers keep their pins. A load
  // under way goes to those who wait for it, and is not kept.
  void Evict(const BuildId& id);
  // Has the next look-up load the build again, with what its metadata says by then. A load under
  // way as in Evict.
  void Reload(const BuildId& id);
  // Tells that what the base holds of a build paused here, or its metadata, has changed: pins its
  // files until the base has all of it, and then lets them go.
  void UpdatePins(const BuildId& id);
  // Makes room for new work within the budget: what nobody uses goes, templates too. False when
  // what may not be evicted alone exceeds it. Blocks; not for a thread that fetches chunks.
  bool HasRoom();
  // Tells that something is no longer in use: evicts what is beyond the budget.
  void Trim();

  // Writes down what was read first of builds resumed here (in `trace_folder`) and by peers of
  // builds paused here (in their metadata), as far as reads have paused. Blocks on the disk; for
  // one thread that calls it every second or so.
  void SaveTraces();

  DiffStore& BuildStore();

  // What a peer that asks for `id` is told, and the pinned file when it can be served: builds
  // paused here, and layers that this node holds in part: of loaded templates, and of builds paused
  // here whose records say where they were read from. `even_if_durable` serves what is durable too.
  // `with_file` false: the head alone, without a file. Such a layer that is not open here is
  // NOT_YET and begins to be opened. DataLoss: a build paused here whose file is gone or cut short.
  absl::StatusOr<ServedFile> Resolve(const BuildFileId& id, bool even_if_durable, bool with_file);

  // As Resolve with a file, for threads that must not wait for the disk: of a file that is not
  // open, the head alone.
  absl::StatusOr<ServedFile> ResolveOpen(const BuildFileId& id, bool even_if_durable);

  // The sources given for a loaded build and its layers, or recorded when a child was paused here.
  std::vector<std::string> SourcesOf(const BuildId& id) const;
  std::vector<BuildId> LoadedBuilds() const;

 private:
  struct Impl;
  explicit TemplateCache(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;  // Templates that outlive the cache know it weakly.
};

}  // namespace peerchunk
