#include "template/layers.h"

#include <fcntl.h>

#include <utility>

#include "base/logging.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include "template/layer_upstream.h"

namespace peerchunk {
namespace {

// Peers that ask for a layer whose opening failed hear NOT_AVAILABLE this long.
constexpr absl::Duration kFailurePause = absl::Seconds(5);

// What a build has on the disk besides its diffs, blobs and records, by whole pages.
uint64_t BesideDiffs(const RecordedBuild& build) {
  uint64_t bytes = 2 * kPageBytes;
  for (const auto& [kind, file] : build.files) {
    if (!IsSeekable(kind)) bytes += RoundUp(file.checksums->size, kPageBytes);
  }
  return bytes;
}

}  // namespace

void LayerSources::Add(const BuildSources& more) {
  const MutexLock lock(mutex_);
  for (const auto& [build, addresses] : more.by_build) {
    const auto [entry, added] = sources_.by_build.try_emplace(build, addresses);
    if (!added) AddMissing(entry->second, addresses);
  }
  AddMissing(sources_.default_addresses, more.default_addresses);
}

std::vector<std::string> LayerSources::For(const BuildId& build) const {
  const MutexLock lock(mutex_);
  return sources_.For(build);
}

void LayerSources::SetMapped(FileKind diff, const Header& header) {
  for (const Header::Layer& layer : header.Layers()) {
    required_[{layer.build_id, diff}] = layer.required_size;
  }
}

uint64_t LayerSources::RequiredBytes(const BuildFileId& layer) const {
  const auto found = required_.find(layer);
  return found == required_.end() ? 0 : found->second;
}

absl::StatusOr<std::shared_ptr<BuildFile>> Layers::Open(const BuildFileId& layer,
                                                        std::shared_ptr<LayerSources> sources,
                                                        const ReadOptions& options) {
  const std::shared_ptr<const RecordedBuild> build = options_->registry->Find(layer.build);
  if (build != nullptr && build->has(layer.kind)) {
    const bool in_base = build->files.at(layer.kind).in_base;
    std::shared_ptr<BuildFile> held = store_->Lookup(layer);
    const auto* recorded = dynamic_cast<const LocalBuildFile*>(held.get());
    if (held != nullptr && (recorded == nullptr || !recorded->corrupt() || !in_base)) return held;
    if (held == nullptr) {
      absl::StatusOr<std::shared_ptr<BuildFile>> file = OpenRecorded(layer);
      if (file.ok() || !in_base) return file;
    }
    store_->Remove(layer);  // This node's copy is damaged; the base has a good one.
  }
  absl::StatusOr<std::shared_ptr<BuildFile>> file =
      store_->GetOrOpen(layer, Opener(layer, sources), options);
  // It may have been opened for a template that knew of other addresses.
  if (file.ok()) AddSources(*sources);
  return file;
}

void Layers::AddSources(const LayerSources& sources) {
  std::vector<std::pair<BuildFileId, std::shared_ptr<LayerUpstream>>> open;
  {
    const MutexLock lock(mutex_);
    for (const auto& [layer, known] : upstreams_) {
      if (!sources.Maps(layer)) continue;
      if (std::shared_ptr<LayerUpstream> upstream = known.lock()) {
        open.emplace_back(layer, std::move(upstream));
      }
    }
  }
  for (const auto& [layer, upstream] : open) {
    const absl::Status added = upstream->Add(sources.For(layer.build));
    if (added.ok()) continue;
    Logger("template")
        .warn("event=sources_not_added file={} cause=\"{}\"", layer.ObjectPath(), added.ToString());
  }
}

absl::StatusOr<std::shared_ptr<BuildFile>> Layers::OpenRecorded(const BuildFileId& id) {
  if (std::shared_ptr<BuildFile> held = store_->Lookup(id)) return held;
  PEERCHUNK_ASSIGN_OR_RETURN(std::shared_ptr<BuildFile> file, options_->registry->OpenFile(id));
  const std::shared_ptr<const RecordedBuild> build = options_->registry->Find(id.build);
  // Every build has this one.
  const bool counts_rest = build != nullptr && id.kind == FileKind::kRootfs;
  store_->Insert(id, file, /*only_copy=*/true, counts_rest ? BesideDiffs(*build) : 0);
  UpdatePins(id.build);
  if (options_->registry->Find(id.build) == nullptr) store_->Remove(id);  // Removed meanwhile.
  return file;
}

// Whoever changes the record comes here afterwards. So the last to write the pins has seen the last
// change, or looks again and sees it.
void Layers::UpdatePins(const BuildId& build) {
  const auto only_copy_now = [&] {
    const std::shared_ptr<const RecordedBuild> record = options_->registry->Find(build);
    return record != nullptr && !HeldByBase(*record);
  };
  bool only_copy = only_copy_now();
  while (true) {
    store_->SetOnlyCopy(build, only_copy);
    const bool again = only_copy_now();
    if (again == only_copy) return;
    only_copy = again;
  }
}

bool Layers::StartOpen(const BuildFileId& layer, std::shared_ptr<LayerSources> sources) {
  {
    const MutexLock lock(mutex_);
    const auto failed = failed_at_.find(layer);
    if (failed != failed_at_.end()) {
      if (options_->clock->Now() < failed->second + kFailurePause) return false;
      failed_at_.erase(failed);
    }
  }
  store_->StartOpen(layer, Opener(layer, std::move(sources)), Priority::kDemand);
  return true;
}

DiffStore::Opener Layers::Opener(const BuildFileId& layer, std::shared_ptr<LayerSources> sources) {
  return [this, layer, sources = std::move(sources)] {
    absl::StatusOr<std::shared_ptr<BuildFile>> file = OpenForeign(layer, *sources);
    if (file.ok()) return file;
    const MutexLock lock(mutex_);
    failed_at_[layer] = options_->clock->Now();
    return file;
  };
}

absl::StatusOr<std::shared_ptr<BuildFile>> Layers::OpenForeign(const BuildFileId& layer,
                                                               const LayerSources& sources) {
  const std::string path = layer.ObjectPath();
  const std::shared_ptr<LayerUpstream> upstream = NewUpstream(layer);
  PEERCHUNK_RETURN_IF_ERROR(upstream->Add(sources.For(layer.build)));
  ReadOptions options;
  options.deadline = options_->clock->Now() + options_->load_timeout;
  options.cancellation = stop_;
  // A source whose file ends before what the header maps is no source.
  const uint64_t required = sources.RequiredBytes(layer);
  options.least_size = required;
  absl::StatusOr<uint64_t> size = upstream->Size(options);
  if (absl::IsDeadlineExceeded(size.status()) || absl::IsCancelled(size.status())) {
    // Not the limits of those who wait for this.
    size = absl::UnavailableError(size.status().message());
  }
  if (!size.ok()) return Annotate(size.status(), absl::StrCat("open ", path));
  if (*size < required) {
    return absl::DataLossError(absl::StrCat("open ", path, ": its size is given as ", *size,
                                            " bytes, but the header maps ", required));
  }
  File file;  // A disk without room for another file must not fail a guest's read.
  if (absl::StatusOr<File> made = NewCacheFile(layer); made.ok()) {
    file = *std::move(made);
  } else {
    Logger("template")
        .error("event=not_cached file={} error=\"{}\"", path,
               std::string_view(made.status().message().data(), made.status().message().size()));
  }
  ChunkCacheOptions chunks = options_->chunks;
  return ChunkCache::Open(layer, std::move(file), *size, /*provider=*/nullptr, upstream,
                          std::move(chunks));
}

// Known from the start, so that no address is missed that is named while the layer is opened.
std::shared_ptr<LayerUpstream> Layers::NewUpstream(const BuildFileId& layer) {
  auto upstream = std::make_shared<LayerUpstream>(layer, &options_->open_provider);
  const MutexLock lock(mutex_);
  absl::erase_if(upstreams_, [](const auto& known) { return known.second.expired(); });
  upstreams_[layer] = upstream;
  return upstream;
}

absl::StatusOr<File> Layers::NewCacheFile(const BuildFileId& layer) {
  const std::string name = absl::StrCat(AbslView(FileName(layer.kind)), "-", layer.build.ToString(),
                                        "-", next_file_++, ".chunks");
  folder_.Remove(name).IgnoreError();
  PEERCHUNK_ASSIGN_OR_RETURN(File file, folder_.OpenAt(name, O_RDWR | O_CREAT | O_EXCL));
  PEERCHUNK_RETURN_IF_ERROR(folder_.Remove(name));
  return file;
}

}  // namespace peerchunk
