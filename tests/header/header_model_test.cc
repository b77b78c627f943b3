// Mapping code against a naive model with random inputs: a device is an array of page contents, a
// diff file an array of page contents, and a header is right when reading through it gives the
// array.
#include <map>
#include <random>

#include <gtest/gtest.h>

#include "header/compressed_codec.h"
#include "peerchunk/header/header.h"
#include "tests/header/header_fixtures.h"

namespace peerchunk {
namespace {

using header_testing::Metadata;
using header_testing::NumberedId;

using Content = uint64_t;  // of one page; 0 is a page of zeros, others are unique
using Files = std::map<BuildId, std::vector<Content>>;

constexpr uint64_t kFarPages = 1 << 20;  // storage offsets whose deltas take several bytes in V5

class HeaderModelTest : public ::testing::TestWithParam<uint64_t> {
 protected:
  uint64_t Below(uint64_t n) { return std::uniform_int_distribution<uint64_t>(0, n - 1)(random_); }
  bool OneIn(uint64_t n) { return Below(n) == 0; }

  // What a reader finds at page `page` of `files`, through one mapping.
  static Content Read(const Files& files, const BuildId& build, uint64_t storage_offset) {
    if (build.is_nil()) return 0;
    return files.at(build).at(storage_offset / kPageBytes);
  }

  // Every page, read at a random byte of it; and each segment is right up to its end.
  void ExpectDevice(const Header& h, const std::vector<Content>& device, const Files& files) {
    for (uint64_t page = 0; page < device.size(); ++page) {
      const uint64_t offset = std::min(page * kPageBytes + Below(kPageBytes), h.size() - 1);
      const absl::StatusOr<Segment> segment = h.Route(offset);
      ASSERT_TRUE(segment.ok()) << segment.status();
      ASSERT_GT(segment->length, 0u);
      ASSERT_LE(offset + segment->length, h.size());
      const uint64_t within = offset % kPageBytes;
      for (uint64_t done = 0; done < within + segment->length; done += kPageBytes) {
        ASSERT_EQ(Read(files, segment->build_id,
                       segment->is_zero() ? 0 : segment->storage_offset - within + done),
                  device[(offset + done) / kPageBytes])
            << "page " << page << " + " << done;
      }
    }
  }

  // Contiguous mappings over `pages` pages of random builds, zeros and storage offsets.
  std::vector<Mapping> RandomMappings(uint64_t pages, uint64_t builds) {
    std::vector<Mapping> mappings;
    for (uint64_t at = 0; at < pages;) {
      const uint64_t length = std::min(pages - at, 1 + Below(4));
      Mapping m = {at * kPageBytes, length * kPageBytes, {}, 0};
      if (!OneIn(4)) {
        m.build_id = NumberedId(static_cast<uint32_t>(Below(builds)));
        m.storage_offset = Below(OneIn(3) ? kFarPages : 16) * kPageBytes;
        const bool goes_on = !mappings.empty() && mappings.back().build_id == m.build_id;
        if (goes_on && OneIn(2))
          m.storage_offset = mappings.back().storage_offset + mappings.back().length;
      }
      mappings.push_back(m);
      at += length;
    }
    return mappings;
  }

  std::mt19937_64 random_{GetParam()};
};

// The (build, storage page) of each page; nothing where no mapping covers it.
using Cells = std::map<uint64_t, std::pair<BuildId, uint64_t>>;
Cells CellsOf(absl::Span<const Mapping> mappings) {
  Cells cells;
  for (const Mapping& m : mappings) {
    for (uint64_t done = 0; done < m.length; done += kPageBytes) {
      cells[(m.offset + done) / kPageBytes] = {
          m.build_id, m.is_zero() ? 0 : (m.storage_offset + done) / kPageBytes};
    }
  }
  return cells;
}

TEST_P(HeaderModelTest, MergeIsTheDiffOverTheBase) {
  for (int round = 0; round < 50; ++round) {
    const uint64_t pages = 1 + Below(40);
    const std::vector<Mapping> base = RandomMappings(pages, 3);
    std::vector<Mapping> diff;
    for (const Mapping& m : RandomMappings(pages, 3)) {
      if (OneIn(2)) diff.push_back(m);
    }
    const absl::StatusOr<std::vector<Mapping>> merged = MergeMappings(base, diff);
    ASSERT_TRUE(merged.ok()) << merged.status();
    Cells expected = CellsOf(diff);
    expected.merge(CellsOf(base));
    EXPECT_EQ(CellsOf(*merged), expected);
    EXPECT_TRUE(Header::Create(Metadata(3, pages * kPageBytes), *merged).ok());
  }
}

TEST_P(HeaderModelTest, NormalizeKeepsEveryPageAndLeavesNothingToJoin) {
  for (int round = 0; round < 50; ++round) {
    std::vector<Mapping> mappings = RandomMappings(1 + Below(60), 2);
    if (OneIn(2)) std::erase_if(mappings, [&](const Mapping&) { return OneIn(5); });
    const std::vector<Mapping> joined = NormalizeMappings(mappings);
    EXPECT_EQ(CellsOf(joined), CellsOf(mappings));
    for (size_t i = 1; i < joined.size(); ++i) {
      const Mapping& a = joined[i - 1];
      const Mapping& b = joined[i];
      const bool one = a.end() == b.offset && a.build_id == b.build_id &&
                       (a.is_zero() || a.storage_offset + a.length == b.storage_offset);
      EXPECT_FALSE(one) << "entries " << i - 1 << " and " << i;
    }
  }
}

TEST_P(HeaderModelTest, GenerationsReadBackWhatWasWritten) {
  const uint64_t version = 1 + Below(5);
  const uint64_t block_pages = OneIn(2) ? 1 : 1 + Below(4);
  const uint64_t pages = 1 + Below(80);
  HeaderMetadata metadata = Metadata(version, pages * kPageBytes, NumberedId(0));
  if (OneIn(3)) metadata.size -= Below(kPageBytes);
  metadata.block_size = block_pages * kPageBytes;

  Content next = 1;
  Files files;
  std::vector<Content> device(pages);
  for (Content& c : device) c = next++;
  files[metadata.build_id] = device;
  Header h = Header::CreateIdentity(metadata).value();
  ExpectDevice(h, device, files);

  for (uint32_t generation = 1; generation < 8; ++generation) {
    ChangedBlocks blocks;
    std::vector<Content>& file = files[NumberedId(generation)];
    for (uint64_t block = 0; block < CeilDiv(pages, block_pages); ++block) {
      const uint64_t from = block * block_pages;
      const uint64_t to = std::min(pages, from + block_pages);
      if (OneIn(3)) {
        blocks.dirty.push_back(block);
        for (uint64_t page = from; page < to; ++page) file.push_back(device[page] = next++);
      } else if (OneIn(4)) {
        blocks.zeroed.push_back(block);
        for (uint64_t page = from; page < to; ++page) device[page] = 0;
      }
    }
    const absl::StatusOr<Header> child = h.NextGeneration(NumberedId(generation), blocks);
    ASSERT_TRUE(child.ok()) << child.status();
    HeaderMetadata expected = h.metadata();
    expected.generation = generation;
    expected.build_id = NumberedId(generation);
    EXPECT_EQ(child->metadata(), expected);
    EXPECT_EQ(child->incomplete(), version > 3);
    h = *child;
    ExpectDevice(h, device, files);
    const absl::StatusOr<Header> decoded =
        Header::Decode(h.Encode(), {.expected_build = NumberedId(generation)});
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(*decoded, h);
  }
}

TEST_P(HeaderModelTest, LayersAreWhatRoutingReads) {
  for (int round = 0; round < 20; ++round) {
    const uint64_t pages = 1 + Below(60);
    const uint64_t size = pages * kPageBytes - (OneIn(3) ? Below(kPageBytes) : 0);
    const Header h = Header::Create(Metadata(3, size), RandomMappings(pages, 4)).value();
    std::map<BuildId, Layer> expected;
    for (uint64_t offset = 0; offset < size;) {
      const Segment s = h.Route(offset).value();
      offset += s.length;
      if (s.is_zero()) continue;
      Layer& layer = expected[s.build_id];
      layer.build_id = s.build_id;
      layer.required_size = std::max(layer.required_size, s.storage_offset + s.length);
      layer.mapped_bytes += s.length;
    }
    std::vector<Layer> in_order;
    in_order.reserve(expected.size());
    for (const auto& [id, layer] : expected) in_order.push_back(layer);
    EXPECT_EQ(h.Layers(), in_order);
  }
}

// Frame tables of random shape; every entry of the mapping lies inside the file.
TEST_P(HeaderModelTest, EveryVersionRoundTripsAndItsSizeIsArithmetic) {
  for (int round = 0; round < 20; ++round) {
    const uint64_t pages = 1 + Below(200);
    const std::vector<Mapping> mappings = NormalizeMappings(RandomMappings(pages, 1 + Below(5)));
    for (const uint64_t version : {1, 2, 3, 4, 5}) {
      HeaderExtras extras;
      for (uint32_t build = 0; version > 3 && build < 5; ++build) {
        if (OneIn(3)) continue;
        BuildRecord record = {.build_id = NumberedId(build),
                              .file_size = (kFarPages + 300) * kPageBytes};
        if (OneIn(2)) record.sha256.emplace().fill(static_cast<uint8_t>(1 + Below(255)));
        record.compression = static_cast<Compression>(Below(3));
        Frame frame;
        for (uint64_t n = record.compression == Compression::kNone ? 0 : Below(20); n > 0; --n) {
          frame = {frame.end_uncompressed() + Below(3), frame.end_compressed() + Below(3),
                   static_cast<uint32_t>(1 + Below(5000)), static_cast<uint32_t>(1 + Below(5000))};
          record.frames.push_back(frame);
        }
        extras.builds.push_back(record);
      }
      extras.incomplete = version > 3 && OneIn(2);
      const absl::StatusOr<Header> h =
          Header::Create(Metadata(version, pages * kPageBytes), mappings, extras);
      ASSERT_TRUE(h.ok()) << h.status();
      const std::string bytes = h->Encode();
      const absl::StatusOr<Header> decoded = Header::Decode(bytes);
      ASSERT_TRUE(decoded.ok()) << decoded.status();
      EXPECT_EQ(*decoded, *h);
      if (version <= 3) {
        EXPECT_EQ(h->EncodedSize(), bytes.size());
        EXPECT_EQ(h->EncodedSize(), 64 + 40 * mappings.size());
      } else {
        EXPECT_EQ(h->EncodedSize(),
                  69 + header::EncodeInner(version, mappings, extras.builds).size());
      }
    }
  }
}

// A frame is kept exactly when the child reads a byte of it.
TEST_P(HeaderModelTest, ChildKeepsExactlyTheFramesThatItReads) {
  for (int round = 0; round < 20; ++round) {
    const uint64_t pages = 1 + Below(60);
    BuildRecord record = {.build_id = NumberedId(0),
                          .file_size = pages * kPageBytes,
                          .compression = Compression::kLz4};
    Frame frame;
    while (frame.end_uncompressed() < record.file_size) {
      frame = {frame.end_uncompressed(), frame.end_compressed(),
               static_cast<uint32_t>(1 + Below(5 * kPageBytes)), 1};
      record.frames.push_back(frame);
    }
    const Header parent = Header::CreateIdentity(Metadata(5, record.file_size, NumberedId(0)))
                              .value()
                              .WithOwnBuild(record)
                              .value();
    ChangedBlocks blocks;
    for (uint64_t block = 0; block < pages; ++block) {
      if (!OneIn(4)) blocks.dirty.push_back(block);
    }
    const Header child = parent.NextGeneration(NumberedId(1), blocks).value();
    std::vector<Frame> expected;
    for (const Frame& f : record.frames) {
      bool read = false;
      for (uint64_t page = f.start_uncompressed / kPageBytes;
           page < pages && page * kPageBytes < f.end_uncompressed(); ++page) {
        read = read || child.Route(page * kPageBytes)->build_id == NumberedId(0);
      }
      if (read) expected.push_back(f);
    }
    const BuildRecord* kept = child.FindBuild(NumberedId(0));
    EXPECT_EQ(kept == nullptr ? std::vector<Frame>() : kept->frames, expected);
    EXPECT_EQ(kept == nullptr, blocks.dirty.size() == pages);
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, HeaderModelTest, ::testing::Range<uint64_t>(1, 41));

}  // namespace
}  // namespace peerchunk
