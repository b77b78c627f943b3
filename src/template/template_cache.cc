#include "peerchunk/template/template_cache.h"

#include <fcntl.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "base/logging.h"
#include "build/task_group.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/base/status.h"
#include "template/access_trace.h"
#include "template/layers.h"
#include "template/memory_build_file.h"
#include "template/served_traces.h"
#include "template/template_load.h"
#include "template/trace_folder.h"
#include "template/working_set_fetch.h"

namespace peerchunk {
namespace {

// What a peer waits before it asks again for a layer that is being opened.
constexpr absl::Duration kOpeningHint = absl::Milliseconds(20);

absl::StatusOr<File> OpenCacheFolder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return ErrnoStatus(error.value(), absl::StrCat("make cache folder ", path));
  PEERCHUNK_ASSIGN_OR_RETURN(File folder, File::Open(path, O_RDONLY | O_DIRECTORY));
  // Of a process that ended between making a file and taking its name away.
  PEERCHUNK_ASSIGN_OR_RETURN(const std::vector<std::string> entries, folder.List());
  for (const std::string& entry : entries) {
    if (entry.ends_with(".chunks")) folder.Remove(entry).IgnoreError();
  }
  return folder;
}

}  // namespace

const std::vector<std::string>& BuildSources::For(const BuildId& build) const {
  const auto found = by_build.find(build);
  return found == by_build.end() ? default_addresses : found->second;
}

struct TemplateCache::Impl : std::enable_shared_from_this<Impl> {
  // One load and those who wait for it. Guarded by `mutex`.
  struct Loading {
    std::shared_ptr<LayerSources> sources;
    std::optional<absl::StatusOr<std::shared_ptr<Template>>> result;
    CondVar done;
  };
  struct Loaded {
    std::shared_ptr<Template> pinned;
    std::shared_ptr<LayerSources> sources;
    uint64_t last_use = 0;
    bool asked_for = false;  // By GetTemplate: its working set is, too.
    std::unique_ptr<WorkingSetFetch> working_set;

    bool idle() const { return pinned.use_count() == 1; }
  };

  Impl(Options all_options, File cache_folder, std::optional<TraceFolder> trace_folder)
      : options(std::move(all_options)),
        traces(std::move(trace_folder)),
        served_traces(options.registry, options.clock, options.on_metadata_replaced),
        tasks(options.executor),
        store(StoreOptions()),
        layers(&options, std::move(cache_folder), &store, tasks.stop()),
        prefetches(options.working_set_executor != nullptr ? options.working_set_executor
                                                           : options.executor) {}

  DiffStore::Options StoreOptions();
  // Sets what only a shared Impl can: the hook that keeps chunk caches within the budget.
  void SetAdmission();
  void InsertRecorded();
  void Close();

  absl::StatusOr<std::shared_ptr<Template>> GetTemplate(const BuildId& id,
                                                        const BuildSources& sources,
                                                        const ReadOptions& options);
  TemplateLoad::OpenerFor OpenersFor();
  absl::StatusOr<std::shared_ptr<Template>> Await(const BuildId& id, Loading& loading,
                                                  const ReadOptions& options);
  void FinishLoad(const BuildId& id, const std::shared_ptr<Loading>& loading,
                  absl::StatusOr<std::shared_ptr<Template>> result);
  std::vector<Loaded> TakeExcess() PEERCHUNK_REQUIRES(mutex);
  void AskedFor(const std::shared_ptr<Template>& loaded_template);
  std::optional<WorkingSet> WorkingSetFor(const Template& loaded_template) const;
  BuildSources WithInherited(const BuildId& id, BuildSources sources) const
      PEERCHUNK_REQUIRES(mutex);
  std::vector<std::string> SourcesOf(const BuildId& id) const PEERCHUNK_REQUIRES(mutex);
  std::shared_ptr<LayerSources> RecordedSourcesOf(const BuildId& id) const;
  bool MakeRoom(uint64_t bytes);
  std::vector<Loaded> TakeIdle();
  void OnEvict(const BuildFileId& id);

  enum class WithFile : uint8_t { kNo, kIfOpen, kYes };
  absl::StatusOr<std::optional<ServedFile>> ResolveRecorded(const BuildFileId& id,
                                                            bool even_if_durable,
                                                            WithFile with_file);
  absl::StatusOr<std::shared_ptr<BuildFile>> OpenRecorded(const BuildFileId& id);
  ServedFile ResolveLoaded(const BuildFileId& id, bool with_file);
  std::shared_ptr<BuildFile> Watched(std::shared_ptr<BuildFile> file);

  Options options;
  const std::optional<TraceFolder> traces;
  ServedTraces served_traces;
  mutable Mutex mutex;
  bool closed PEERCHUNK_GUARDED_BY(mutex) = false;
  uint64_t use_clock PEERCHUNK_GUARDED_BY(mutex) = 0;
  std::map<BuildId, Loaded> loaded PEERCHUNK_GUARDED_BY(mutex);
  std::map<BuildId, std::shared_ptr<Loading>> loading PEERCHUNK_GUARDED_BY(mutex);  // To be joined.
  // All loads under way: those, and ones whose outcome is of no use but to who waits already.
  std::set<std::shared_ptr<Loading>> unfinished PEERCHUNK_GUARDED_BY(mutex);

  TaskGroup tasks;
  DiffStore store;
  Layers layers;
  TaskGroup prefetches;
};

DiffStore::Options TemplateCache::Impl::StoreOptions() {
  DiffStore::Options store_options;
  store_options.capacity_bytes = options.cache_capacity_bytes;
  store_options.on_evict = [this](const BuildFileId& id) { OnEvict(id); };
  store_options.executor = options.executor;
  store_options.clock = options.clock;
  return store_options;
}

void TemplateCache::Impl::SetAdmission() {
  options.chunks.admit = [weak = weak_from_this()](uint64_t bytes) {
    const std::shared_ptr<Impl> impl = weak.lock();
    return impl == nullptr || impl->MakeRoom(bytes);
  };
  options.chunks.admit_ahead = [weak = weak_from_this()](uint64_t bytes) {
    const std::shared_ptr<Impl> impl = weak.lock();
    return impl != nullptr && impl->store.HasRoom(bytes);
  };
}

// What was paused here counts in the disk budget whether or not anyone reads it.
void TemplateCache::Impl::InsertRecorded() {
  for (const std::shared_ptr<const RecordedBuild>& build : options.registry->List()) {
    for (const auto& [kind, record] : build->files) {
      if (!IsSeekable(kind)) continue;
      const absl::Status opened = layers.OpenRecorded({build->id, kind}).status();
      if (opened.ok()) continue;
      Logger("template")
          .error("event=open_failed build={} error=\"{}\"", build->id.ToString(),
                 std::string_view(opened.message().data(), opened.message().size()));
    }
  }
}

void TemplateCache::Impl::Close() {
  std::map<BuildId, Loaded> dropped;
  {
    const MutexLock lock(mutex);
    closed = true;
    dropped.swap(loaded);
  }
  prefetches.Close();
  tasks.Close();
  // Chunk caches go here, not with the last reference to this, which may be one of their fetches'.
  dropped.clear();
  store.Close();
  const MutexLock lock(mutex);
  for (const std::shared_ptr<Loading>& waited : unfinished) {
    waited->result = absl::UnavailableError("shutting down");  // It was dropped half-way.
    waited->done.NotifyAll();
  }
}

TemplateCache::TemplateCache(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
TemplateCache::~TemplateCache() { impl_->Close(); }

absl::StatusOr<std::unique_ptr<TemplateCache>> TemplateCache::Open(Options options) {
  if (options.registry == nullptr || options.executor == nullptr || !options.open_provider) {
    return absl::InvalidArgumentError(
        "template cache: registry, executor and open_provider are required");
  }
  if (options.chunks.executor == nullptr) options.chunks.executor = options.executor;
  if (options.chunks.metrics == nullptr) options.chunks.metrics = options.metrics;
  PEERCHUNK_ASSIGN_OR_RETURN(File folder, OpenCacheFolder(options.cache_folder));
  std::optional<TraceFolder> traces;
  if (!options.trace_folder.empty()) {
    PEERCHUNK_ASSIGN_OR_RETURN(traces, TraceFolder::Open(options.trace_folder));
  }
  auto impl = std::make_shared<Impl>(std::move(options), std::move(folder), std::move(traces));
  impl->SetAdmission();
  impl->InsertRecorded();
  return std::unique_ptr<TemplateCache>(new TemplateCache(std::move(impl)));
}

absl::StatusOr<std::shared_ptr<Template>> TemplateCache::GetTemplate(const BuildId& id,
                                                                     const BuildSources& sources,
                                                                     const ReadOptions& options) {
  absl::StatusOr<std::shared_ptr<Template>> loaded = impl_->GetTemplate(id, sources, options);
  if (loaded.ok()) impl_->AskedFor(*loaded);
  return loaded;
}

void TemplateCache::Impl::AskedFor(const std::shared_ptr<Template>& asked) {
  if (options.working_set_executor == nullptr) return;
  {
    const MutexLock lock(mutex);
    const auto found = loaded.find(asked->id());
    if (found == loaded.end() || found->second.pinned != asked) return;
    if (std::exchange(found->second.asked_for, true)) return;
  }
  // Reads a file: without the lock.
  std::optional<WorkingSet> set = WorkingSetFor(*asked);
  if (!set) return;
  std::unique_ptr<WorkingSetFetch> fetch =
      WorkingSetFetch::Start(asked, *std::move(set),
                             {.tasks = &prefetches,
                              .clock = options.clock,
                              .timeout = options.chunks.fetch_timeout,
                              .metrics = options.metrics});
  const MutexLock lock(mutex);
  const auto found = loaded.find(asked->id());
  if (found != loaded.end() && found->second.pinned == asked) {
    found->second.working_set.swap(fetch);
  }
}

std::optional<WorkingSet> TemplateCache::Impl::WorkingSetFor(const Template& asked) const {
  if (asked.Memfile() == nullptr) return std::nullopt;
  const uint64_t size = asked.Memfile()->size();
  if (traces) {
    if (std::optional<WorkingSet> own = traces->Load(asked.id(), size)) return own;
  }
  absl::StatusOr<std::optional<WorkingSet>> set = DecodeWorkingSet(asked.MetadataFile(), size);
  if (set.ok()) return *std::move(set);
  Logger("template")
      .warn("event=working_set_ignored build={} cause=\"{}\"", asked.id().ToString(),
            set.status().ToString());
  return std::nullopt;
}

void TemplateCache::SaveTraces() {
  impl_->served_traces.SaveSettled();
  if (!impl_->traces) return;
  std::vector<std::shared_ptr<Template>> in_use;
  {
    const MutexLock lock(impl_->mutex);
    for (const auto& [id, entry] : impl_->loaded) in_use.push_back(entry.pinned);
  }
  for (const std::shared_ptr<Template>& pinned : in_use) {
    if (pinned->Memfile() == nullptr || pinned->Memfile()->trace() == nullptr) continue;
    const std::optional<WorkingSet> set = pinned->Memfile()->trace()->TakeSettled();
    if (!set) continue;
    const absl::Status saved = impl_->traces->Save(pinned->id(), *set);
    if (!saved.ok()) {
      Logger("template").warn("event=trace_not_kept cause=\"{}\"", saved.ToString());
    }
  }
}

absl::StatusOr<std::shared_ptr<Template>> TemplateCache::Impl::GetTemplate(
    const BuildId& id, const BuildSources& sources, const ReadOptions& read_options) {
  std::shared_ptr<Template> here;
  std::shared_ptr<LayerSources> known_sources;
  std::shared_ptr<Loading> waited;
  bool first = false;
  {
    const MutexLock lock(mutex);
    if (closed) return absl::UnavailableError("shutting down");
    if (const auto found = loaded.find(id); found != loaded.end()) {
      found->second.last_use = ++use_clock;
      found->second.sources->Add(sources);
      known_sources = found->second.sources;
      here = found->second.pinned;
    } else {
      std::shared_ptr<Loading>& entry = loading[id];
      first = entry == nullptr;
      if (first) {
        entry = std::make_shared<Loading>();
        entry->sources = std::make_shared<LayerSources>(WithInherited(id, sources));
        unfinished.insert(entry);
      } else {
        entry->sources->Add(sources);
      }
      waited = entry;
    }
  }
  if (here != nullptr) {
    layers.AddSources(*known_sources);
    return here;
  }
  if (first) {
    TemplateLoad::Start(&options, &tasks, id, waited->sources, OpenersFor(), read_options.priority,
                        [this, id, waited](absl::StatusOr<std::shared_ptr<Template>> result) {
                          FinishLoad(id, waited, std::move(result));
                        });
  }
  return Await(id, *waited, read_options);
}

TemplateLoad::OpenerFor TemplateCache::Impl::OpenersFor() {
  return [weak = weak_from_this()](std::shared_ptr<LayerSources> sources) {
    return [weak, sources = std::move(sources)](
               const BuildFileId& layer,
               const ReadOptions& limits) -> absl::StatusOr<std::shared_ptr<BuildFile>> {
      const std::shared_ptr<Impl> impl = weak.lock();
      if (impl == nullptr) return absl::UnavailableError("shutting down");
      return impl->layers.Open(layer, sources, limits);
    };
  };
}

absl::StatusOr<std::shared_ptr<Template>> TemplateCache::Impl::Await(
    const BuildId& id, Loading& waited, const ReadOptions& read_options) {
  // Made and destroyed without the lock, which its callback takes.
  const std::stop_callback wake(read_options.cancellation, [&] {
    const MutexLock lock(mutex);
    waited.done.NotifyAll();
  });
  const MutexLock lock(mutex);
  while (!waited.result) {
    if (read_options.cancellation.stop_requested()) {
      return absl::CancelledError(absl::StrCat("load ", id.ToString()));
    }
    if (options.clock->Now() >= read_options.deadline) {
      return absl::DeadlineExceededError(absl::StrCat("load ", id.ToString(), ": still loading"));
    }
    options.clock->WaitUntil(waited.done, mutex, read_options.deadline);
  }
  return *waited.result;
}

void TemplateCache::Impl::FinishLoad(const BuildId& id, const std::shared_ptr<Loading>& begun,
                                     absl::StatusOr<std::shared_ptr<Template>> result) {
  if (options.metrics != nullptr) {
    options.metrics
        ->counter("peerchunk_template_loads_total", {{"outcome", result.ok() ? "ok" : "error"}})
        .Add();
  }
  std::vector<Loaded> dropped;  // Go after the lock.
  {
    const MutexLock lock(mutex);
    // Else it was told to be read again meanwhile, or to go.
    if (const auto entry = loading.find(id); entry != loading.end() && entry->second == begun) {
      loading.erase(entry);
      if (result.ok() && !closed) {
        loaded[id] = {.pinned = *result, .sources = begun->sources, .last_use = ++use_clock};
        dropped = TakeExcess();
      }
    }
  }
  if (result.ok()) layers.AddSources(*begun->sources);
  const MutexLock lock(mutex);
  unfinished.erase(begun);
  begun->result = std::move(result);
  begun->done.NotifyAll();
}

// One in use is in memory whether or not it is known here.
std::vector<TemplateCache::Impl::Loaded> TemplateCache::Impl::TakeExcess() {
  std::vector<Loaded> taken;
  while (loaded.size() > options.max_templates) {
    auto oldest = loaded.end();
    for (auto entry = loaded.begin(); entry != loaded.end(); ++entry) {
      if (!entry->second.idle()) continue;
      if (oldest == loaded.end() || entry->second.last_use < oldest->second.last_use) {
        oldest = entry;
      }
    }
    if (oldest == loaded.end()) break;
    taken.push_back(std::move(oldest->second));
    loaded.erase(oldest);
  }
  return taken;
}

std::shared_ptr<Template> TemplateCache::GetCachedTemplate(const BuildId& id) {
  const MutexLock lock(impl_->mutex);
  const auto found = impl_->loaded.find(id);
  return found == impl_->loaded.end() ? nullptr : found->second.pinned;
}

absl::StatusOr<std::shared_ptr<Template>> TemplateCache::AddSnapshot(const BuildId& id,
                                                                     const ReadOptions& options) {
  const std::shared_ptr<const RecordedBuild> build = impl_->options.registry->Find(id);
  if (build == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("add snapshot ", id.ToString(), ": it was not paused on this node"));
  }
  for (const auto& [kind, record] : build->files) {
    if (!IsSeekable(kind)) continue;
    const absl::Status opened = impl_->layers.OpenRecorded({id, kind}).status();
    if (!opened.ok() && impl_->options.registry->Find(id) != nullptr) return opened;
  }
  impl_->MakeRoom(0);
  return impl_->GetTemplate(id, {}, options);
}

void TemplateCache::Reload(const BuildId& id) {
  Impl::Loaded dropped;  // Goes after the lock.
  const MutexLock lock(impl_->mutex);
  impl_->loading.erase(id);
  const auto found = impl_->loaded.find(id);
  if (found == impl_->loaded.end()) return;
  dropped = std::move(found->second);
  impl_->loaded.erase(found);
}

void TemplateCache::Evict(const BuildId& id) {
  Reload(id);
  if (impl_->traces) impl_->traces->Forget(id);
  for (const FileKind kind : kAllFileKinds) {
    if (IsSeekable(kind)) impl_->store.Remove({id, kind});
  }
}

void TemplateCache::UpdatePins(const BuildId& id) {
  impl_->layers.UpdatePins(id);
  impl_->MakeRoom(0);
}

bool TemplateCache::HasRoom() {
  if (!impl_->store.Full()) return true;
  impl_->TakeIdle();  // What is dropped may end fetches, and waits for them.
  impl_->store.Trim();
  return !impl_->store.Full();
}

void TemplateCache::Trim() { impl_->MakeRoom(0); }

DiffStore& TemplateCache::BuildStore() { return impl_->store; }

// Runs on a fetch's or a caller's thread: what it drops goes on a task of its own, because the last
// pin of a chunk cache must not be dropped by its own fetch.
bool TemplateCache::Impl::MakeRoom(uint64_t bytes) {
  if (store.MakeRoom(bytes)) return true;
  auto idle = std::make_shared<std::vector<Loaded>>(TakeIdle());
  if (idle->empty()) return false;
  tasks.Run(Priority::kPrefetch, [this, idle] {
    idle->clear();
    store.Trim();
  });
  return false;
}

std::vector<TemplateCache::Impl::Loaded> TemplateCache::Impl::TakeIdle() {
  std::vector<Loaded> idle;
  const MutexLock lock(mutex);
  for (auto entry = loaded.begin(); entry != loaded.end();) {
    if (entry->second.idle()) {
      idle.push_back(std::move(entry->second));
      entry = loaded.erase(entry);
    } else {
      ++entry;
    }
  }
  return idle;
}

// A build paused here leaves the disk as a whole, and only when the base has all of it, asked when
// its metadata can no longer be replaced, and nobody has come to read it since this was evicted.
void TemplateCache::Impl::OnEvict(const BuildFileId& id) {
  const std::shared_ptr<const RecordedBuild> build = options.registry->Find(id.build);
  if (build == nullptr) return;
  const absl::Status removed = options.registry->Remove(
      id.build,
      [&](const RecordedBuild& evicted) { return HeldByBase(evicted) && !store.InUse(id.build); });
  if (absl::IsFailedPrecondition(removed)) {  // It counts in the budget all the same.
    layers.OpenRecorded(id).IgnoreError();
    return;
  }
  if (!removed.ok() && !absl::IsNotFound(removed)) {
    Logger("template")
        .error("event=evict_failed build={} error=\"{}\"", id.build.ToString(),
               std::string_view(removed.message().data(), removed.message().size()));
    return;
  }
  for (const auto& [kind, record] : build->files) store.Remove({id.build, kind});
}

absl::StatusOr<ServedFile> TemplateCache::Resolve(const BuildFileId& id, bool even_if_durable,
                                                  bool with_file) {
  const auto file = with_file ? Impl::WithFile::kYes : Impl::WithFile::kNo;
  PEERCHUNK_ASSIGN_OR_RETURN(std::optional<ServedFile> served,
                             impl_->ResolveRecorded(id, even_if_durable, file));
  if (served) return *std::move(served);
  return impl_->ResolveLoaded(id, with_file);
}

absl::StatusOr<ServedFile> TemplateCache::ResolveOpen(const BuildFileId& id, bool even_if_durable) {
  PEERCHUNK_ASSIGN_OR_RETURN(std::optional<ServedFile> served,
                             impl_->ResolveRecorded(id, even_if_durable, Impl::WithFile::kIfOpen));
  if (served) return *std::move(served);
  return impl_->ResolveLoaded(id, true);
}

// Nothing when the build was not paused here.
absl::StatusOr<std::optional<ServedFile>> TemplateCache::Impl::ResolveRecorded(
    const BuildFileId& id, bool even_if_durable, WithFile with_file) {
  while (true) {
    const std::shared_ptr<const RecordedBuild> build = options.registry->Find(id.build);
    if (build == nullptr) return std::nullopt;
    ServedFile served;
    served.head.status = build->status;
    const auto record = build->files.find(id.kind);
    if (record == build->files.end()) {
      served.head.availability = Availability::kAbsent;
      return served;
    }
    served.head.total_size = record->second.checksums->size;
    served.head.file_crc32c = record->second.checksums->crc32c;
    served.head.in_base = record->second.in_base;
    if (id.kind == FileKind::kMetadata) served.head.version = build->metadata_version;
    const bool use_storage = build->status.state == BuildState::kDurable && record->second.in_base;
    if (use_storage && !even_if_durable) {
      served.head.availability = Availability::kUseStorage;
      return served;
    }
    served.head.availability = Availability::kAvailable;
    if (with_file == WithFile::kNo) return served;
    absl::StatusOr<std::shared_ptr<BuildFile>> file;
    if (with_file == WithFile::kIfOpen) {
      file = store.Lookup(id);
      if (*file == nullptr) return served;
    } else {
      file = OpenRecorded(id);
    }
    if (!file.ok()) {
      // Removed since the look: look again.
      if (absl::IsNotFound(file.status()) && options.registry->Find(id.build) != build) continue;
      return file.status();
    }
    // metadata.json was replaced since the look: head and bytes must be of one version.
    if ((*file)->size() != served.head.total_size || (*file)->crc32c() != served.head.file_crc32c) {
      if (options.registry->Find(id.build) != build) continue;
    }
    served.file = Watched(*std::move(file));
    if (options.record_served && id.kind == FileKind::kMemfileHeader) served_traces.Begin(*build);
    return served;
  }
}

std::shared_ptr<BuildFile> TemplateCache::Impl::Watched(std::shared_ptr<BuildFile> file) {
  if (!options.record_served || file->id().kind != FileKind::kMemfile) return file;
  return served_traces.Watch(std::move(file));
}

absl::StatusOr<std::shared_ptr<BuildFile>> TemplateCache::Impl::OpenRecorded(
    const BuildFileId& id) {
  if (IsSeekable(id.kind)) return layers.OpenRecorded(id);
  return options.registry->OpenFile(id);
}

ServedFile TemplateCache::Impl::ResolveLoaded(const BuildFileId& id, bool with_file) {
  ServedFile served;
  served.head.status.incarnation = options.registry->incarnation();
  // Of NOT_AVAILABLE, this says that it never will be.
  if (options.registry->Discarded(id.build)) served.head.status.state = BuildState::kFailed;
  std::shared_ptr<BuildFile> file;
  if (IsSeekable(id.kind)) {
    file = store.Lookup(id);
    if (file == nullptr) {
      std::shared_ptr<LayerSources> sources;
      {
        const MutexLock lock(mutex);
        for (const auto& [build, entry] : loaded) {
          if (entry.sources->Maps(id)) sources = entry.sources;
        }
      }
      // Others may have been sent here for it before this process began, or while its child was
      // loaded.
      if (sources == nullptr) sources = RecordedSourcesOf(id.build);
      if (sources != nullptr && layers.StartOpen(id, std::move(sources))) {
        served.head.availability = Availability::kNotYet;
        served.head.retry_after = kOpeningHint;
      }
      return served;
    }
  } else {
    std::shared_ptr<Template> pinned;
    {
      const MutexLock lock(mutex);
      const auto found = loaded.find(id.build);
      if (found != loaded.end()) pinned = found->second.pinned;
    }
    if (pinned == nullptr) return served;
    std::shared_ptr<const std::string> bytes = pinned->BlobBytes(id.kind);
    if (bytes == nullptr) {
      served.head.availability = Availability::kAbsent;
      return served;
    }
    file = std::make_shared<MemoryBuildFile>(id, std::move(bytes));
  }
  served.head.availability = Availability::kAvailable;
  served.head.total_size = file->size();
  served.head.file_crc32c = file->crc32c();
  if (with_file) served.file = Watched(std::move(file));
  return served;
}

std::vector<std::string> TemplateCache::Impl::SourcesOf(const BuildId& id) const {
  const auto found = loaded.find(id);
  if (found != loaded.end()) return found->second.sources->For(id);
  for (const auto& [build, entry] : loaded) {
    for (const FileKind kind : {FileKind::kMemfile, FileKind::kRootfs}) {
      if (entry.sources->Maps({id, kind})) return entry.sources->For(id);
    }
  }
  const std::shared_ptr<LayerSources> recorded = RecordedSourcesOf(id);
  return recorded == nullptr ? std::vector<std::string>{} : recorded->For(id);
}

// Where a build was read from when children of it were paused here; null when no record says so.
std::shared_ptr<LayerSources> TemplateCache::Impl::RecordedSourcesOf(const BuildId& id) const {
  std::shared_ptr<LayerSources> sources;
  for (const std::shared_ptr<const RecordedBuild>& child : options.registry->List()) {
    const auto recorded = child->ancestor_sources.find(id);
    if (recorded == child->ancestor_sources.end()) continue;
    BuildSources named;
    named.by_build.insert(*recorded);
    if (sources == nullptr) {
      sources = std::make_shared<LayerSources>(std::move(named));
    } else {
      sources->Add(named);
    }
  }
  return sources;
}

std::vector<std::string> TemplateCache::SourcesOf(const BuildId& id) const {
  const MutexLock lock(impl_->mutex);
  return impl_->SourcesOf(id);
}

// The layers of a build paused here lie where those of the template lay that it was started from.
BuildSources TemplateCache::Impl::WithInherited(const BuildId& id, BuildSources sources) const {
  const std::shared_ptr<const RecordedBuild> build = options.registry->Find(id);
  if (build == nullptr) return sources;
  for (const BuildId& ancestor : build->ancestors) {
    std::vector<std::string> inherited = SourcesOf(ancestor);
    if (inherited.empty() || sources.by_build.contains(ancestor)) continue;
    for (const std::string& address : sources.default_addresses) {
      if (std::find(inherited.begin(), inherited.end(), address) == inherited.end()) {
        inherited.push_back(address);
      }
    }
    sources.by_build[ancestor] = std::move(inherited);
  }
  return sources;
}

std::vector<BuildId> TemplateCache::LoadedBuilds() const {
  std::vector<BuildId> builds;
  const MutexLock lock(impl_->mutex);
  for (const auto& [id, entry] : impl_->loaded) builds.push_back(id);
  return builds;
}

}  // namespace peerchunk
