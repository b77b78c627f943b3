#include "template/served_traces.h"

#include <algorithm>
#include <utility>

#include <absl/container/flat_hash_map.h>
#include <absl/container/flat_hash_set.h>

#include "base/logging.h"
#include "peerchunk/base/status.h"
#include "peerchunk/header/header.h"
#include "template/access_trace.h"

namespace peerchunk {
namespace {

constexpr size_t kMaxTraces = 16;
// Of one trace: reads as peers asked for them, before they are mapped to blocks.
constexpr size_t kMaxReads = 2 * kMaxWorkingSetBlocks;
// Metadata is kept in memory while its build is traced.
constexpr uint64_t kMaxTracedMetadataBytes = kMiB;
// A trace that nothing comes to makes room for another.
constexpr absl::Duration kLongestWait = absl::Minutes(5);

struct ServedRead {
  BuildId layer;
  ByteRange range;  // Of the layer's diff.
};

// Where the bytes of the layers' diffs lie on the device.
class ReverseMapping {
 public:
  explicit ReverseMapping(const Header& header) {
    for (const Mapping& mapping : header.mappings()) {
      if (!mapping.is_zero()) pieces_[mapping.build_id].push_back(mapping);
    }
    for (auto& [build, pieces] : pieces_) {
      std::sort(pieces.begin(), pieces.end(), [](const Mapping& a, const Mapping& b) {
        return a.storage_offset < b.storage_offset;
      });
    }
  }

  // Calls `found` with each range of the device that shows a part of the read.
  template <typename Found>
  void ForEach(const ServedRead& read, const Found& found) const {
    const auto layer = pieces_.find(read.layer);
    if (layer == pieces_.end()) return;
    auto piece = std::partition_point(
        layer->second.begin(), layer->second.end(), [&](const Mapping& mapping) {
          return mapping.storage_offset + mapping.length <= read.range.offset;
        });
    for (; piece != layer->second.end() && piece->storage_offset < read.range.end(); ++piece) {
      const uint64_t begin = std::max(read.range.offset, piece->storage_offset);
      const uint64_t end = std::min(read.range.end(), piece->storage_offset + piece->length);
      found(ByteRange{piece->offset + (begin - piece->storage_offset), end - begin});
    }
  }

 private:
  absl::flat_hash_map<BuildId, std::vector<Mapping>> pieces_;
};

WorkingSet ToBlocks(const Header& header, const std::vector<ServedRead>& reads) {
  WorkingSet set;
  set.block_bytes = header.block_size() % kPageBytes == 0 ? header.block_size() : kPageBytes;
  const ReverseMapping mapping(header);
  absl::flat_hash_set<uint64_t> seen;
  for (const ServedRead& read : reads) {
    mapping.ForEach(read, [&](ByteRange range) {
      const uint64_t end = CeilDiv(range.end(), set.block_bytes);
      for (uint64_t block = range.offset / set.block_bytes; block < end; ++block) {
        if (set.blocks.size() == kMaxWorkingSetBlocks) return;
        if (seen.insert(block).second) set.blocks.push_back(block);
      }
    });
  }
  return set;
}

absl::StatusOr<std::string> ReadBlob(BuildRegistry& registry, const BuildFileId& id) {
  PEERCHUNK_ASSIGN_OR_RETURN(const std::shared_ptr<LocalBuildFile> file, registry.OpenFile(id));
  std::string bytes(file->size(), '\0');
  PEERCHUNK_RETURN_IF_ERROR(file->ReadAt(0, absl::MakeSpan(bytes.data(), bytes.size()), {}));
  return bytes;
}

}  // namespace

struct ServedTraces::Trace {
  Trace(const RecordedBuild& recorded, absl::Time now) : build(recorded.id), begun(now) {
    layers.insert(recorded.id);
    layers.insert(recorded.ancestors.begin(), recorded.ancestors.end());
  }

  const BuildId build;
  const absl::Time begun;
  absl::flat_hash_set<BuildId> layers;  // Fixed.

  Mutex mutex;
  std::vector<ServedRead> reads PEERCHUNK_GUARDED_BY(mutex);
  absl::Time first PEERCHUNK_GUARDED_BY(mutex);
  absl::Time last PEERCHUNK_GUARDED_BY(mutex);

  // Of the thread that saves.
  size_t saved = 0;               // Of `reads`.
  std::string metadata;           // As it was before the first save.
  uint64_t metadata_version = 0;  // That this process wrote; 0: none yet.
  std::shared_ptr<const Header> header;
};

// Passes everything on, and notes what is read for peers.
class ServedTraces::WatchedFile final : public BuildFile {
 public:
  WatchedFile(std::shared_ptr<BuildFile> file, Clock* clock,
              std::vector<std::shared_ptr<Trace>> traces)
      : file_(std::move(file)), clock_(clock), traces_(std::move(traces)) {}

  const BuildFileId& id() const override { return file_->id(); }
  uint64_t size() const override { return file_->size(); }
  std::optional<uint32_t> crc32c() const override { return file_->crc32c(); }
  absl::StatusOr<size_t> ReadAt(uint64_t offset, absl::Span<char> out,
                                const ReadOptions& options) override {
    absl::StatusOr<size_t> got = file_->ReadAt(offset, out, options);
    if (got.ok() && options.priority == Priority::kDemand) Note({offset, *got});
    return got;
  }
  absl::StatusOr<std::vector<Run>> ReadRuns(uint64_t offset, absl::Span<char> out,
                                            const ReadOptions& options) override {
    absl::StatusOr<std::vector<Run>> runs = file_->ReadRuns(offset, out, options);
    if (runs.ok() && !runs->empty() && options.priority == Priority::kDemand) {
      Note({offset, runs->back().offset + runs->back().length});
    }
    return runs;
  }
  std::vector<Run> TryReadRuns(uint64_t offset, uint64_t length, absl::Span<char> out,
                               const ReadOptions& options) override {
    std::vector<Run> runs = file_->TryReadRuns(offset, length, out, options);
    if (!runs.empty() && options.priority == Priority::kDemand) {
      Note({offset, runs.back().offset + runs.back().length});
    }
    return runs;
  }
  bool TryReadAt(uint64_t offset, absl::Span<char> out) override {
    const bool got = file_->TryReadAt(offset, out);
    if (got) Note({offset, out.size()});
    return got;
  }
  absl::Status Prefetch(ByteRange range, const ReadOptions& options) override {
    return file_->Prefetch(range, options);
  }
  uint64_t PresentBytes(uint64_t offset, uint64_t limit) const override {
    return file_->PresentBytes(offset, limit);
  }
  uint64_t AllocatedBytes() const override { return file_->AllocatedBytes(); }

 private:
  void Note(ByteRange range) {
    if (range.empty()) return;
    const absl::Time now = clock_->Now();
    for (const std::shared_ptr<Trace>& trace : traces_) {
      const MutexLock lock(trace->mutex);
      if (trace->reads.empty()) trace->first = now;
      if (trace->reads.size() == kMaxReads || now > trace->first + kTracedAfterFirstRead) continue;
      trace->last = now;
      trace->reads.push_back({id().build, range});
    }
  }

  const std::shared_ptr<BuildFile> file_;
  Clock* const clock_;
  const std::vector<std::shared_ptr<Trace>> traces_;
};

void ServedTraces::Begin(const RecordedBuild& build) {
  if (!build.has(FileKind::kMemfile)) return;
  const MutexLock lock(mutex_);
  if (traces_.size() == kMaxTraces || traces_.contains(build.id) || ended_.contains(build.id)) {
    return;
  }
  traces_.emplace(build.id, std::make_shared<Trace>(build, clock_->Now()));
  running_.store(traces_.size(), std::memory_order_relaxed);
}

std::shared_ptr<BuildFile> ServedTraces::Watch(std::shared_ptr<BuildFile> file) {
  if (running_.load(std::memory_order_relaxed) == 0) return file;
  std::vector<std::shared_ptr<Trace>> watching;
  {
    const MutexLock lock(mutex_);
    for (const auto& [build, trace] : traces_) {
      if (trace->layers.contains(file->id().build)) watching.push_back(trace);
    }
  }
  if (watching.empty()) return file;
  return std::make_shared<WatchedFile>(std::move(file), clock_, std::move(watching));
}

void ServedTraces::SaveSettled() {
  std::vector<std::shared_ptr<Trace>> running;
  {
    const MutexLock lock(mutex_);
    std::erase_if(ended_, [this](const BuildId& id) { return registry_->Find(id) == nullptr; });
    for (const auto& [build, trace] : traces_) running.push_back(trace);
  }
  for (const std::shared_ptr<Trace>& trace : running) {
    const Fate fate = SaveOrEnd(*trace);
    if (fate == Fate::kGoesOn) continue;
    const MutexLock lock(mutex_);
    traces_.erase(trace->build);
    if (fate == Fate::kEnded) ended_.insert(trace->build);
    running_.store(traces_.size(), std::memory_order_relaxed);
  }
}

ServedTraces::Fate ServedTraces::SaveOrEnd(Trace& trace) {
  if (registry_->Find(trace.build) == nullptr) return Fate::kDropped;
  bool over = false;
  {
    const MutexLock lock(trace.mutex);
    const absl::Time now = clock_->Now();
    if (trace.reads.empty()) {
      return now > trace.begun + kLongestWait ? Fate::kDropped : Fate::kGoesOn;
    }
    over = now > trace.first + kTracedAfterFirstRead;
    if (!over && now < trace.last + kTraceSettledAfter) return Fate::kGoesOn;
    if (trace.reads.size() == trace.saved) return over ? Fate::kEnded : Fate::kGoesOn;
  }
  const absl::Status saved = Save(trace);
  if (saved.ok()) return over ? Fate::kEnded : Fate::kGoesOn;
  if (!absl::IsFailedPrecondition(saved)) {
    Logger("template")
        .warn("event=working_set_not_recorded build={} cause=\"{}\"", trace.build.ToString(),
              saved.ToString());
  }
  return Fate::kEnded;
}

// FailedPrecondition: the metadata has a `prefetch` that is not this trace's.
absl::Status ServedTraces::Save(Trace& trace) {
  const BuildFileId metadata_id{trace.build, FileKind::kMetadata};
  const std::shared_ptr<const RecordedBuild> build = registry_->Find(trace.build);
  if (build == nullptr) return absl::NotFoundError("the build has left this node");
  if (trace.header == nullptr) {
    PEERCHUNK_ASSIGN_OR_RETURN(const std::string bytes,
                               ReadBlob(*registry_, {trace.build, FileKind::kMemfileHeader}));
    PEERCHUNK_ASSIGN_OR_RETURN(Header header, Header::Decode(bytes));
    trace.header = std::make_shared<const Header>(std::move(header));
  }
  if (trace.metadata_version == 0 || trace.metadata_version != build->metadata_version) {
    if (build->files.at(FileKind::kMetadata).checksums->size > kMaxTracedMetadataBytes) {
      return absl::FailedPreconditionError("metadata.json is too large to be kept in memory");
    }
    PEERCHUNK_ASSIGN_OR_RETURN(trace.metadata, ReadBlob(*registry_, metadata_id));
  }
  std::vector<ServedRead> reads;
  {
    const MutexLock lock(trace.mutex);
    reads = trace.reads;
  }
  const WorkingSet set = ToBlocks(*trace.header, reads);
  trace.saved = reads.size();
  if (set.blocks.empty()) return absl::OkStatus();
  PEERCHUNK_ASSIGN_OR_RETURN(const std::string bytes, WithWorkingSet(trace.metadata, set));
  // Aborted: somebody else has just replaced it, and knows better.
  PEERCHUNK_RETURN_IF_ERROR(
      registry_->ReplaceMetadata(trace.build, bytes, build->metadata_version));
  trace.metadata_version = build->metadata_version + 1;
  if (on_replaced_) on_replaced_(trace.build);
  return absl::OkStatus();
}

}  // namespace peerchunk
