#include "template/layer_upstream.h"

#include <algorithm>
#include <utility>

#include "peerchunk/base/status.h"

namespace peerchunk {

// Keeps what it reads from while it reads.
class LayerUpstream::Reader final : public RangeReader {
 public:
  Reader(std::shared_ptr<const Opened> opened, std::unique_ptr<RangeReader> reader)
      : opened_(std::move(opened)), reader_(std::move(reader)) {}

  absl::StatusOr<std::optional<Extent>> Next() override { return reader_->Next(); }

 private:
  const std::shared_ptr<const Opened> opened_;  // Before `reader_`, which must go first.
  const std::unique_ptr<RangeReader> reader_;
};

absl::Status LayerUpstream::Add(const std::vector<std::string>& addresses) {
  while (true) {
    const std::shared_ptr<const Opened> known = Latest();
    auto opened = std::make_shared<Opened>();
    if (known != nullptr) opened->addresses = known->addresses;
    AddMissing(opened->addresses, addresses);
    if (known != nullptr && opened->addresses.size() == known->addresses.size()) {
      return absl::OkStatus();
    }
    PEERCHUNK_ASSIGN_OR_RETURN(opened->provider,
                               (*open_provider_)(layer_.build, opened->addresses));
    PEERCHUNK_ASSIGN_OR_RETURN(opened->object, opened->provider->OpenSeekable(layer_.ObjectPath()));
    const MutexLock lock(mutex_);
    if (opened_ != known) continue;  // Others were added meanwhile.
    opened_ = std::move(opened);
    return absl::OkStatus();
  }
}

std::shared_ptr<const LayerUpstream::Opened> LayerUpstream::Latest() const {
  const MutexLock lock(mutex_);
  return opened_;
}

absl::StatusOr<uint64_t> LayerUpstream::Size(const ReadOptions& options) {
  const std::shared_ptr<const Opened> latest = Latest();
  return latest->object->Size(options);
}

absl::StatusOr<size_t> LayerUpstream::ReadAt(uint64_t offset, absl::Span<char> out,
                                             const ReadOptions& options) {
  const std::shared_ptr<const Opened> latest = Latest();
  return latest->object->ReadAt(offset, out, options);
}

absl::StatusOr<std::unique_ptr<RangeReader>> LayerUpstream::OpenRangeReader(
    uint64_t offset, uint64_t length, const ReadOptions& options) {
  std::shared_ptr<const Opened> latest = Latest();
  PEERCHUNK_ASSIGN_OR_RETURN(std::unique_ptr<RangeReader> reader,
                             latest->object->OpenRangeReader(offset, length, options));
  return std::make_unique<Reader>(std::move(latest), std::move(reader));
}

absl::StatusOr<ObjectStat> LayerUpstream::StoreFile(const std::string& path,
                                                    const WriteOptions& options) {
  const std::shared_ptr<const Opened> latest = Latest();
  return latest->object->StoreFile(path, options);
}

absl::StatusOr<ObjectStat> LayerUpstream::Stat(const ReadOptions& options) {
  const std::shared_ptr<const Opened> latest = Latest();
  return latest->object->Stat(options);
}

void AddMissing(std::vector<std::string>& to, const std::vector<std::string>& from) {
  for (const std::string& address : from) {
    if (std::find(to.begin(), to.end(), address) == to.end()) to.push_back(address);
  }
}

}  // namespace peerchunk
