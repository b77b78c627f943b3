#include "peerchunk/header/mapping.h"

#include <algorithm>
#include <limits>

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include "peerchunk/base/range.h"
#include "peerchunk/header/header.h"

namespace peerchunk {
namespace {

absl::Status CheckAscending(absl::Span<const uint64_t> blocks, uint64_t count, const char* kind) {
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (i > 0 && blocks[i] <= blocks[i - 1]) {
      return absl::InvalidArgumentError(
          absl::StrCat(kind, " block ", blocks[i], " follows block ", blocks[i - 1]));
    }
    if (blocks[i] >= count) {
      return absl::InvalidArgumentError(
          absl::StrCat(kind, " block ", blocks[i], " of a device of ", count, " blocks"));
    }
  }
  return absl::OkStatus();
}

// Ascending, no overlap, no empty or overflowing piece; returns the end of the last one.
absl::StatusOr<uint64_t> CheckOrdered(absl::Span<const Mapping> mappings, bool contiguous,
                                      const char* name) {
  uint64_t end = 0;
  for (const Mapping& m : mappings) {
    const uint64_t furthest = m.is_zero() ? m.offset : std::max(m.offset, m.storage_offset);
    const uint64_t room = std::numeric_limits<uint64_t>::max() - furthest;
    if (m.offset < end || (contiguous && m.offset != end) || m.length == 0 || m.length > room) {
      return absl::InvalidArgumentError(absl::StrCat(name, " mapping at ", m.offset, ", length ",
                                                     m.length, ", after one that ends at ", end));
    }
    end = m.end();
  }
  return end;
}

void CutFront(Mapping& m, uint64_t offset) {
  const uint64_t shift = offset - m.offset;
  m.offset = offset;
  m.length -= shift;
  if (!m.is_zero()) m.storage_offset += shift;
}

bool Joins(const Mapping& a, const Mapping& b) {
  return a.end() == b.offset && a.build_id == b.build_id &&
         (a.is_zero() || a.storage_offset + a.length == b.storage_offset);
}

}  // namespace

absl::StatusOr<std::vector<Mapping>> MakeDiffMappings(const BuildId& build_id,
                                                      const ChangedBlocks& blocks,
                                                      uint64_t block_size, uint64_t device_size) {
  if (block_size == 0 || block_size % kPageBytes != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("block size ", block_size, " is not a positive multiple of ", kPageBytes));
  }
  if (device_size > kMaxDeviceBytes) {
    return absl::InvalidArgumentError(absl::StrCat("device of ", device_size, " bytes"));
  }
  if (build_id.is_nil()) return absl::InvalidArgumentError("a diff needs a build id");
  const uint64_t count = CeilDiv(device_size, block_size);
  if (absl::Status s = CheckAscending(blocks.dirty, count, "dirty"); !s.ok()) return s;
  if (absl::Status s = CheckAscending(blocks.zeroed, count, "zeroed"); !s.ok()) return s;

  const uint64_t covered = RoundUp(device_size, kPageBytes);
  std::vector<Mapping> runs;
  uint64_t packed = 0;
  auto dirty = blocks.dirty.begin();
  auto zeroed = blocks.zeroed.begin();
  while (dirty != blocks.dirty.end() || zeroed != blocks.zeroed.end()) {
    const bool is_dirty =
        zeroed == blocks.zeroed.end() || (dirty != blocks.dirty.end() && *dirty <= *zeroed);
    if (is_dirty && zeroed != blocks.zeroed.end() && *dirty == *zeroed) {
      return absl::InvalidArgumentError(absl::StrCat("block ", *dirty, " is dirty and zeroed"));
    }
    const uint64_t offset = (is_dirty ? *dirty++ : *zeroed++) * block_size;
    const Mapping block = {
        .offset = offset,
        .length = std::min(block_size, covered - offset),
        .build_id = is_dirty ? build_id : BuildId(),
        .storage_offset = is_dirty ? packed : 0,
    };
    if (is_dirty) packed += block.length;
    if (!runs.empty() && Joins(runs.back(), block)) {
      runs.back().length += block.length;
    } else {
      runs.push_back(block);
    }
  }
  return runs;
}

absl::StatusOr<std::vector<Mapping>> MergeMappings(absl::Span<const Mapping> base,
                                                   absl::Span<const Mapping> diff) {
  absl::StatusOr<uint64_t> base_end = CheckOrdered(base, /*contiguous=*/true, "base");
  if (!base_end.ok()) return base_end.status();
  absl::StatusOr<uint64_t> diff_end = CheckOrdered(diff, /*contiguous=*/false, "diff");
  if (!diff_end.ok()) return diff_end.status();
  if (*diff_end > *base_end) {
    return absl::InvalidArgumentError(
        absl::StrCat("diff ends at ", *diff_end, ", past its base's end at ", *base_end));
  }

  std::vector<Mapping> merged;
  merged.reserve(base.size() + 2 * diff.size());
  auto next = base.begin();
  Mapping piece;  // what is left of the current base mapping; empty: take the next
  const auto refill = [&] {
    if (piece.length == 0 && next != base.end()) piece = *next++;
    return piece.length != 0;
  };
  for (const Mapping& d : diff) {
    while (refill() && piece.offset < d.offset) {
      Mapping kept = piece;
      kept.length = std::min(piece.end(), d.offset) - piece.offset;
      merged.push_back(kept);
      CutFront(piece, kept.end());
    }
    merged.push_back(d);
    while (refill() && piece.offset < d.end()) CutFront(piece, std::min(piece.end(), d.end()));
  }
  while (refill()) {
    merged.push_back(piece);
    piece.length = 0;
  }
  return merged;
}

std::vector<Mapping> NormalizeMappings(absl::Span<const Mapping> mappings) {
  std::vector<Mapping> joined;
  joined.reserve(mappings.size());
  for (Mapping m : mappings) {
    if (m.is_zero()) m.storage_offset = 0;
    if (!joined.empty() && Joins(joined.back(), m)) {
      joined.back().length += m.length;
    } else {
      joined.push_back(m);
    }
  }
  return joined;
}

}  // namespace peerchunk
