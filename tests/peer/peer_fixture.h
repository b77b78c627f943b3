#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "peerchunk/base/metrics.h"
#include "peerchunk/peer/peer_directory.h"
#include "tests/support/fault_storage.h"
#include "tests/support/memory_storage.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/simulated_peer.h"
#include "tests/support/status_asserts.h"

namespace peerchunk::test {

inline constexpr char kPeerA[] = "10.0.0.1:7070";
inline constexpr char kPeerB[] = "10.0.0.2:7070";
inline const BuildId kBuild = *BuildId::Parse("aaaaaaaa-0000-4000-8000-000000000001");

inline BuildFileId FileOf(FileKind kind) { return {kBuild, kind}; }

// A directory over simulated nodes and a base in memory that can fail, on one clock.
struct PeerWorld {
  explicit PeerWorld(Clock& the_clock, Executor* executor = nullptr, PeerBudgets budgets = {},
                     uint64_t seed = 1)
      : clock(the_clock), network(std::make_shared<SimulatedNetwork>(the_clock)) {
    auto made = PeerDirectory::Create({.policy = *AddressPolicy::Create({}),
                                       .connector = network,
                                       .budgets = budgets,
                                       .executor = executor,
                                       .clock = &clock,
                                       .metrics = &metrics,
                                       .seed = seed});
    EXPECT_OK(made);
    directory = *std::move(made);
  }

  std::shared_ptr<StorageProvider> Open(const std::vector<std::string>& addresses = {kPeerA}) {
    // The providers do not own the base: the world does.
    auto opened = directory->OpenBuild(
        kBuild, addresses, std::shared_ptr<StorageProvider>(&base, [](StorageProvider*) {}));
    EXPECT_OK(opened);
    return opened.ok() ? *std::move(opened) : nullptr;
  }
  SimulatedNode& Node(const std::string& address = kPeerA) { return network->Node(address); }
  void Seed(FileKind kind, std::string bytes) {
    memory.Seed(FileOf(kind).ObjectPath(), std::move(bytes));
  }
  uint64_t Fallbacks(const std::string& reason) const {
    return metrics.CounterValue("peerchunk_fallbacks_total", {{"reason", reason}});
  }
  uint64_t Quarantines(const std::string& reason) const {
    return metrics.CounterValue("peerchunk_quarantines_total", {{"reason", reason}});
  }
  uint64_t Hedges(const std::string& outcome) const {
    return metrics.CounterValue("peerchunk_hedges_total", {{"outcome", outcome}});
  }
  uint64_t Wasted(const std::string& reason) const {
    return metrics.CounterValue("peerchunk_wasted_bytes_total", {{"reason", reason}});
  }
  uint64_t Breaker(const std::string& outcome) const {
    return metrics.CounterValue("peerchunk_breaker_transitions_total", {{"outcome", outcome}});
  }
  SourceBytes Bytes(FileKind kind) const { return directory->BytesOf(FileOf(kind)); }

  Clock& clock;
  Metrics metrics;
  MemoryStorageProvider memory{clock};
  FaultStorageProvider base{memory, clock};
  std::shared_ptr<SimulatedNetwork> network;
  std::unique_ptr<PeerDirectory> directory;
};

inline absl::StatusOr<std::string> ReadBlob(StorageProvider& provider, FileKind kind,
                                            const ReadOptions& options = {}) {
  PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<Blob> blob,
                             provider.OpenBlob(FileOf(kind).ObjectPath()));
  StringSink sink(uint64_t{1} << 30);
  PEERCHUNK_RETURN_IF_ERROR(blob->WriteTo(sink, options));
  return std::move(sink.bytes());
}

inline absl::StatusOr<std::string> ReadAt(StorageProvider& provider, uint64_t offset, size_t length,
                                          const ReadOptions& options = {},
                                          FileKind kind = FileKind::kMemfile) {
  PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<Seekable> object,
                             provider.OpenSeekable(FileOf(kind).ObjectPath()));
  std::string out(length, '\x55');
  PEERCHUNK_ASSIGN_OR_RETURN(const size_t read,
                             object->ReadAt(offset, absl::MakeSpan(out), options));
  out.resize(read);
  return out;
}

// Drains a range reader, checking that extents are contiguous and in order.
inline absl::StatusOr<std::string> ReadRange(StorageProvider& provider, uint64_t offset,
                                             uint64_t length, const ReadOptions& options = {},
                                             FileKind kind = FileKind::kMemfile) {
  PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<Seekable> object,
                             provider.OpenSeekable(FileOf(kind).ObjectPath()));
  PEERCHUNK_ASSIGN_OR_RETURN(const std::unique_ptr<RangeReader> reader,
                             object->OpenRangeReader(offset, length, options));
  std::string bytes;
  while (true) {
    PEERCHUNK_ASSIGN_OR_RETURN(const auto extent, reader->Next());
    if (!extent) return bytes;
    EXPECT_EQ(extent->offset, offset + bytes.size());
    EXPECT_GT(extent->length, 0u);
    const size_t before = bytes.size();
    bytes.resize(before + extent->length);
    extent->CopyTo(bytes.data() + before);
  }
}

}  // namespace peerchunk::test
