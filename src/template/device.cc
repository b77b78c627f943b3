#include <algorithm>
#include <cstring>
#include <utility>

#include "peerchunk/base/status.h"
#include "peerchunk/template/template.h"
#include "template/access_trace.h"

namespace peerchunk {

namespace {

// Reads a whole segment, none of which lies beyond the end of the device.
absl::Status ReadFile(BuildFile& file, const Segment& segment, absl::Span<char> out,
                      const ReadOptions& options) {
  if (segment.storage_offset + segment.length > file.size()) {
    return absl::DataLossError(absl::StrCat(
        "read ", file.id().ObjectPath(), " [", segment.storage_offset, ", +", segment.length,
        "): the file has ", file.size(), " bytes, fewer than the header maps"));
  }
  return file.ReadAt(segment.storage_offset, out, options).status();
}

}  // namespace

// One layer of a device. `ready` is read without the lock; files are kept until the device goes, so
// a reader may use what it pointed to even after it was replaced.
struct Device::LayerSlot {
  explicit LayerSlot(const BuildId& id) : build(id) {}

  const BuildId build;
  std::atomic<BuildFile*> ready{nullptr};
  Mutex mutex;
  std::vector<std::shared_ptr<BuildFile>> files PEERCHUNK_GUARDED_BY(mutex);
};

Device::Device(FileKind diff, std::shared_ptr<const Header> header, LayerOpener open_layer,
               std::shared_ptr<AccessTrace> trace)
    : diff_(diff),
      header_(std::move(header)),
      open_layer_(std::move(open_layer)),
      trace_(std::move(trace)) {
  for (const Header::Layer& layer : header_->Layers()) {
    layers_.push_back(std::make_unique<LayerSlot>(layer.build_id));
  }
}

Device::~Device() = default;

absl::StatusOr<size_t> Device::ReadAt(uint64_t offset, absl::Span<char> out,
                                      const ReadOptions& options) {
  const std::optional<ByteRange> range = ByteRange::Clip(offset, out.size(), size());
  if (!range) {
    return absl::OutOfRangeError(absl::StrCat("read ", AbslView(FileName(diff_)), " device [",
                                              offset, ", +", out.size(), "): it has ", size(),
                                              " bytes"));
  }
  const bool traced =
      trace_ != nullptr && options.priority == Priority::kDemand && !options.relayed;
  for (uint64_t at = range->offset; at < range->end();) {
    PEERCHUNK_ASSIGN_OR_RETURN(Segment segment, header_->Route(at));
    segment.length = std::min(segment.length, range->end() - at);
    const absl::Span<char> target = out.subspan(at - offset, segment.length);
    if (segment.is_zero()) {
      std::memset(target.data(), 0, target.size());
      zero_bytes_.fetch_add(segment.length, std::memory_order_relaxed);
    } else {
      if (traced) trace_->Note(at, segment.length);
      PEERCHUNK_RETURN_IF_ERROR(ReadLayer(segment, target, options));
    }
    at += segment.length;
  }
  return range->length;
}

absl::Status Device::Prefetch(ByteRange range, const ReadOptions& options) {
  const std::optional<ByteRange> clipped = ByteRange::Clip(range.offset, range.length, size());
  if (!clipped) return absl::OkStatus();
  for (uint64_t at = clipped->offset; at < clipped->end();) {
    PEERCHUNK_ASSIGN_OR_RETURN(const Segment segment, header_->Route(at));
    const uint64_t length = std::min(segment.length, clipped->end() - at);
    if (!segment.is_zero()) {
      LayerSlot& slot = SlotOf(segment.build_id);
      BuildFile* file = slot.ready.load(std::memory_order_acquire);
      if (file == nullptr) {
        PEERCHUNK_ASSIGN_OR_RETURN(file, Layer(slot, options, nullptr));
      }
      PEERCHUNK_RETURN_IF_ERROR(file->Prefetch({segment.storage_offset, length}, options));
    }
    at += length;
  }
  return absl::OkStatus();
}

Device::LayerSlot& Device::SlotOf(const BuildId& layer) const {
  return **std::lower_bound(
      layers_.begin(), layers_.end(), layer,
      [](const auto& slot, const BuildId& build) { return slot->build < build; });
}

absl::Status Device::ReadLayer(const Segment& segment, absl::Span<char> out,
                               const ReadOptions& options) {
  LayerSlot& slot = SlotOf(segment.build_id);
  BuildFile* file = slot.ready.load(std::memory_order_acquire);
  if (file == nullptr) {
    PEERCHUNK_ASSIGN_OR_RETURN(file, Layer(slot, options, nullptr));
  }
  const absl::Status status = ReadFile(*file, segment, out, options);
  if (!absl::IsDataLoss(status)) return status;
  const absl::StatusOr<BuildFile*> other = Layer(slot, options, file);
  return other.ok() ? ReadFile(**other, segment, out, options) : status;
}

absl::StatusOr<BuildFile*> Device::Layer(LayerSlot& slot, const ReadOptions& options,
                                         const BuildFile* failed) {
  PEERCHUNK_ASSIGN_OR_RETURN(std::shared_ptr<BuildFile> file,
                             open_layer_({slot.build, diff_}, options));
  const MutexLock lock(slot.mutex);
  BuildFile* const ready = slot.ready.load(std::memory_order_relaxed);
  if (ready != failed) return ready;  // Another reader was quicker.
  if (file.get() == failed) {
    return absl::DataLossError(absl::StrCat(file->id().ObjectPath(), " has no other copy"));
  }
  slot.files.push_back(std::move(file));
  slot.ready.store(slot.files.back().get(), std::memory_order_release);
  return slot.files.back().get();
}

}  // namespace peerchunk
