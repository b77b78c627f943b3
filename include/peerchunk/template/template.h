#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include "peerchunk/base/build_id.h"
#include "peerchunk/base/file_kind.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/base/range.h"
#include "peerchunk/build/build_file.h"
#include "peerchunk/header/header.h"

namespace peerchunk {

class AccessTrace;

// A block device seen through a header: each read is routed to the diffs of the layers that it
// maps, which are opened when first needed. Thread-safe; owned by its Template.
class Device {
 public:
  using LayerOpener = std::function<absl::StatusOr<std::shared_ptr<BuildFile>>(
      const BuildFileId& layer, const ReadOptions& options)>;

  // `diff` is the kind of the layers' files: kMemfile or kRootfs. `trace` may be null.
  Device(FileKind diff, std::shared_ptr<const Header> header, LayerOpener open_layer,
         std::shared_ptr<AccessTrace> trace = nullptr);
  ~Device();

  const Header& header() const { return *header_; }
  uint64_t size() const { return header_->size(); }

  // Fills `out` from `offset`; short only at the end of the device; OutOfRange beyond it.
  absl::StatusOr<size_t> ReadAt(uint64_t offset, absl::Span<char> out, const ReadOptions& options);

  // Brings the chunks of `range` here, on the caller's thread; see BuildFile::Prefetch.
  absl::Status Prefetch(ByteRange range, const ReadOptions& options);

  // The order in which this device was read at demand priority; null: not kept.
  AccessTrace* trace() const { return trace_.get(); }

  // Bytes that reads got as zeros from the mapping itself, without any source.
  uint64_t zero_bytes_read() const { return zero_bytes_.load(std::memory_order_relaxed); }

 private:
  struct LayerSlot;
  LayerSlot& SlotOf(const BuildId& layer) const;
  // The layer's file; valid as long as the device. `failed`: one that gave DataLoss; then another,
  // or DataLoss where there is none.
  absl::StatusOr<BuildFile*> Layer(LayerSlot& slot, const ReadOptions& options,
                                   const BuildFile* failed);
  absl::Status ReadLayer(const Segment& segment, absl::Span<char> out, const ReadOptions& options);

  const FileKind diff_;
  const std::shared_ptr<const Header> header_;
  const LayerOpener open_layer_;
  const std::shared_ptr<AccessTrace> trace_;
  std::vector<std::unique_ptr<LayerSlot>> layers_;  // Sorted by build; fixed at construction.
  std::atomic<uint64_t> zero_bytes_{0};
};

// A build made ready for use on this node: its devices, snapfile and metadata. Immutable once
// loaded; a shared_ptr to it is a pin that keeps every layer readable. Thread-safe.
class Template {
 public:
  struct Parts {
    BuildId id;
    std::unique_ptr<Device> memfile;  // Null for a filesystem-only build.
    std::unique_ptr<Device> rootfs;
    std::shared_ptr<const std::string> memfile_header;  // The exact bytes.
    std::shared_ptr<const std::string> rootfs_header;
    std::shared_ptr<const std::string> snapfile;  // Null for a filesystem-only build.
    std::shared_ptr<const std::string> metadata;
  };
  explicit Template(Parts parts) : parts_(std::move(parts)) {}

  const BuildId& id() const { return parts_.id; }
  // As metadata.json says: "filesystem_only": true.
  bool filesystem_only() const { return parts_.memfile == nullptr; }

  Device* Memfile() const { return parts_.memfile.get(); }  // Null when filesystem_only().
  Device& Rootfs() const { return *parts_.rootfs; }
  const std::string* Snapfile() const { return parts_.snapfile.get(); }  // Null likewise.
  const std::string& MetadataFile() const { return *parts_.metadata; }
  // The exact bytes of a blob of this build; null when it has none. Only for blob kinds.
  std::shared_ptr<const std::string> BlobBytes(FileKind kind) const;

 private:
  const Parts parts_;
};

}  // namespace peerchunk
