#include "template/template_load.h"

#include <utility>

#include <nlohmann/json.hpp>

#include "peerchunk/base/status.h"
#include "template/access_trace.h"
#include "template/snapshot_check.h"

namespace peerchunk {
namespace {

constexpr FileKind kParts[] = {FileKind::kRootfsHeader, FileKind::kMetadata,
                               FileKind::kMemfileHeader, FileKind::kSnapfile};

// What a filesystem-only build does not have.
bool BelongsToMemory(FileKind kind) {
  return kind == FileKind::kMemfileHeader || kind == FileKind::kSnapfile;
}

}  // namespace

TemplateLoad::TemplateLoad(const TemplateCache::Options* options, TaskGroup* tasks,
                           const BuildId& id, std::shared_ptr<LayerSources> sources,
                           OpenerFor opener_for, Priority priority, Done done)
    : options_(options),
      tasks_(tasks),
      id_(id),
      sources_(std::move(sources)),
      opener_for_(std::move(opener_for)),
      done_(std::move(done)),
      stop_with_cache_(tasks->stop(), [this] { stop_.request_stop(); }) {
  read_options_.priority = priority;
  read_options_.cancellation = stop_.get_token();
}

void TemplateLoad::Start(const TemplateCache::Options* options, TaskGroup* tasks, const BuildId& id,
                         std::shared_ptr<LayerSources> sources, OpenerFor opener_for,
                         Priority priority, Done done) {
  const std::shared_ptr<TemplateLoad> load(new TemplateLoad(
      options, tasks, id, std::move(sources), std::move(opener_for), priority, std::move(done)));
  if (options->registry->Find(id) != nullptr) {
    load->ReadRecordedParts();
  } else {
    tasks->Run(priority, [load] { load->BeginForeign(); });
  }
}

void TemplateLoad::ReadRecordedParts() {
  read_options_.deadline = options_->clock->Now() + options_->load_timeout;
  for (const FileKind kind : kParts) {
    const BuildFileId file{id_, kind};
    Blob blob = ReadRecorded(file);
    if (blob.ok() || !BaseHas(file, blob.status())) {
      TakePart(kind, std::move(blob));
    } else {
      tasks_->Run(read_options_.priority, [self = shared_from_this(), file] {
        self->TakePart(file.kind, self->ReadForeign(file));
      });
    }
  }
}

// True when a file that could not be read here lies in the base: the copy is spoilt, or the build
// left this node since the look.
bool TemplateLoad::BaseHas(const BuildFileId& file, const absl::Status& error) const {
  const std::shared_ptr<const RecordedBuild> build = options_->registry->Find(id_);
  if (build == nullptr) return true;
  return absl::IsDataLoss(error) && build->has(file.kind) && build->files.at(file.kind).in_base;
}

void TemplateLoad::BeginForeign() {
  read_options_.deadline = options_->clock->Now() + options_->load_timeout;
  absl::StatusOr<std::shared_ptr<StorageProvider>> provider =
      options_->open_provider(id_, sources_->For(id_));
  if (!provider.ok()) {
    done_(Annotate(provider.status(), absl::StrCat("load ", id_.ToString())));
    return;
  }
  provider_ = *std::move(provider);
  for (const FileKind kind : kParts) {
    tasks_->Run(read_options_.priority, [self = shared_from_this(), kind] {
      self->TakePart(kind, self->ReadForeign({self->id_, kind}));
    });
  }
}

void TemplateLoad::TakePart(FileKind kind, Blob blob) {
  if (absl::IsDeadlineExceeded(blob.status())) {
    // The load's limit, not that of those who wait for it.
    blob = absl::UnavailableError(blob.status().message());
  }
  const bool absent = absl::IsNotFound(blob.status()) && BelongsToMemory(kind);
  const bool failed = !blob.ok() && !absent;
  bool last = false;
  {
    const MutexLock lock(mutex_);
    if (failed && failure_.ok()) failure_ = blob.status();
    parts_.emplace(kind, std::move(blob));
    last = parts_.size() == std::size(kParts);
  }
  if (last) {
    done_(Finish());
  } else if (failed) {
    stop_.request_stop();  // Nobody needs the others now.
  }
}

TemplateLoad::Blob TemplateLoad::ReadRecorded(const BuildFileId& file) {
  PEERCHUNK_ASSIGN_OR_RETURN(const std::shared_ptr<LocalBuildFile> recorded,
                             options_->registry->OpenFile(file));
  std::string bytes(recorded->size(), '\0');
  PEERCHUNK_RETURN_IF_ERROR(
      recorded->ReadAt(0, absl::MakeSpan(bytes.data(), bytes.size()), read_options_));
  return std::make_shared<const std::string>(std::move(bytes));
}

TemplateLoad::Blob TemplateLoad::ReadForeign(const BuildFileId& file) {
  std::shared_ptr<StorageProvider> provider = provider_;
  if (provider == nullptr) {
    PEERCHUNK_ASSIGN_OR_RETURN(provider, options_->open_provider(id_, sources_->For(id_)));
  }
  PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<peerchunk::Blob> blob,
                             provider->OpenBlob(file.ObjectPath()));
  StringSink sink(Limit(file.kind));
  const absl::Status read = blob->WriteTo(sink, read_options_);
  if (!read.ok()) return Annotate(read, absl::StrCat("load ", file.ObjectPath()));
  return std::make_shared<const std::string>(std::move(sink.bytes()));
}

uint64_t TemplateLoad::Limit(FileKind kind) const {
  if (IsHeader(kind)) return options_->max_header_bytes;
  return kind == FileKind::kSnapfile ? options_->max_snapfile_bytes : options_->max_metadata_bytes;
}

absl::StatusOr<std::shared_ptr<Template>> TemplateLoad::Finish() {
  std::map<FileKind, Blob> parts;
  {
    const MutexLock lock(mutex_);
    PEERCHUNK_RETURN_IF_ERROR(failure_);
    parts.swap(parts_);
  }
  const Blob& memfile_header = parts.at(FileKind::kMemfileHeader);
  const Blob& snapfile = parts.at(FileKind::kSnapfile);
  const bool has_memory = memfile_header.ok();
  if (snapfile.ok() != has_memory) {
    return absl::DataLossError(absl::StrCat(
        "load ", id_.ToString(), ": it has ",
        has_memory ? "memfile.header but no snapfile" : "a snapfile but no memfile.header"));
  }
  Template::Parts made;
  made.id = id_;
  made.metadata = *parts.at(FileKind::kMetadata);
  const absl::Status metadata = CheckMetadata(*made.metadata, id_, has_memory);
  if (!metadata.ok()) {
    return absl::DataLossError(
        absl::StrCat("load ", id_.ToString(), "/metadata.json: ", metadata.message()));
  }
  made.rootfs_header = *parts.at(FileKind::kRootfsHeader);
  PEERCHUNK_ASSIGN_OR_RETURN(made.rootfs, MakeDevice(FileKind::kRootfs, *made.rootfs_header));
  if (has_memory) {
    made.memfile_header = *memfile_header;
    made.snapfile = *snapfile;
    PEERCHUNK_ASSIGN_OR_RETURN(made.memfile, MakeDevice(FileKind::kMemfile, *made.memfile_header));
  }
  return std::make_shared<Template>(std::move(made));
}

absl::StatusOr<std::unique_ptr<Device>> TemplateLoad::MakeDevice(FileKind diff,
                                                                 std::string_view bytes) {
  DecodeOptions options;
  options.expected_build = id_;
  options.max_bytes = options_->max_header_bytes;
  absl::StatusOr<Header> header = Header::Decode(bytes, options);
  const absl::Status usable = header.ok() ? CheckUncompressed(*header) : header.status();
  if (!usable.ok()) {
    return Annotate(usable, absl::StrCat("load ", BuildFileId{id_, HeaderOf(diff)}.ObjectPath()));
  }
  sources_->SetMapped(diff, *header);
  std::shared_ptr<AccessTrace> trace;
  if (diff == FileKind::kMemfile && !options_->trace_folder.empty() &&
      options_->registry->Find(id_) == nullptr) {
    const uint64_t block =
        header->block_size() % kPageBytes == 0 ? header->block_size() : kPageBytes;
    trace = std::make_shared<AccessTrace>(header->size(), block, options_->clock);
  }
  return std::make_unique<Device>(diff, std::make_shared<const Header>(*std::move(header)),
                                  opener_for_(sources_), std::move(trace));
}

}  // namespace peerchunk
