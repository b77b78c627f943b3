#pragma once

#include <functional>
#include <map>
#include <memory>
#include <stop_token>
#include <string>

#include <absl/status/statusor.h>

#include "build/task_group.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/template/template_cache.h"
#include "template/layers.h"

namespace peerchunk {

// One attempt to load a template: reads its blobs side by side, checks them and makes the template.
// Nothing waits on an executor thread: each part is a task, and the last one done ends the load.
// Kept alive by its tasks.
class TemplateLoad : public std::enable_shared_from_this<TemplateLoad> {
 public:
  using Done = std::function<void(absl::StatusOr<std::shared_ptr<Template>>)>;
  // Makes devices' openers, which may outlive the cache.
  using OpenerFor = std::function<Device::LayerOpener(std::shared_ptr<LayerSources>)>;

  // Borrowed: `options` (the cache's) and `tasks`. `done` runs once, inside the call or on a task,
  // unless `tasks` is closed before.
  static void Start(const TemplateCache::Options* options, TaskGroup* tasks, const BuildId& id,
                    std::shared_ptr<LayerSources> sources, OpenerFor opener_for, Priority priority,
                    Done done);

 private:
  using Blob = absl::StatusOr<std::shared_ptr<const std::string>>;

  TemplateLoad(const TemplateCache::Options* options, TaskGroup* tasks, const BuildId& id,
               std::shared_ptr<LayerSources> sources, OpenerFor opener_for, Priority priority,
               Done done);

  void ReadRecordedParts();
  void BeginForeign();
  void TakePart(FileKind kind, Blob blob);
  bool BaseHas(const BuildFileId& file, const absl::Status& error) const;
  Blob ReadRecorded(const BuildFileId& file);
  Blob ReadForeign(const BuildFileId& file);
  absl::StatusOr<std::shared_ptr<Template>> Finish();
  absl::StatusOr<std::unique_ptr<Device>> MakeDevice(FileKind diff, std::string_view header);
  uint64_t Limit(FileKind kind) const;

  const TemplateCache::Options* const options_;
  TaskGroup* const tasks_;
  const BuildId id_;
  const std::shared_ptr<LayerSources> sources_;
  const OpenerFor opener_for_;
  const Done done_;
  ReadOptions read_options_;                   // Fixed before the parts begin.
  std::shared_ptr<StorageProvider> provider_;  // Likewise. Null: the build was paused here.
  std::stop_source stop_;                      // Of all parts, once one has failed.
  std::stop_callback<std::function<void()>> stop_with_cache_;

  Mutex mutex_;
  std::map<FileKind, Blob> parts_ PEERCHUNK_GUARDED_BY(mutex_);
  absl::Status failure_ PEERCHUNK_GUARDED_BY(mutex_);  // The first.
};

}  // namespace peerchunk
