#include "build/cached_pages.h"

#include <fcntl.h>

#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/sample_bytes.h"
#include "tests/support/status_asserts.h"
#include "tests/support/temp_dir.h"

namespace peerchunk::test {
namespace {

using Outcome = CachedPages::Outcome;
using Patience = CachedPages::Patience;

const BuildFileId kId{*BuildId::Parse("aaaaaaaa-0000-4000-8000-000000000001"), FileKind::kMemfile};

class CachedPagesTest : public testing::Test {
 protected:
  std::unique_ptr<CachedPages> Make(uint64_t size) {
    File file = *dir_.folder().OpenAt("pages", O_RDWR | O_CREAT | O_TRUNC);
    EXPECT_OK(file.Truncate(size));
    return std::make_unique<CachedPages>(kId, std::move(file), size, &spoilt_);
  }
  File Behind() { return *dir_.folder().OpenAt("pages", O_RDWR); }

  TempDir dir_;
  Counter spoilt_;
};

// However extents and pieces are cut, the checksums are those of the pages.
TEST_F(CachedPagesTest, BytesThatComeInAnyPiecesAreKeptByPage) {
  std::mt19937 random(3);
  std::string bytes = SampleBytes(3 * kMiB + 4097, 1);
  bytes.replace(kMiB - 5000, 200'000, 200'000, '\0');
  bytes.replace(bytes.size() - 6000, 6000, 6000, '\0');
  for (int round = 0; round < 4; ++round) {
    const std::unique_ptr<CachedPages> pages = Make(bytes.size());
    CachedPages::Writer writer(pages.get(), 0);
    uint64_t present = 0;
    for (uint64_t at = 0; at < bytes.size();) {
      const uint64_t most = round == 0 ? 5000 : 100'000 * round;
      const uint64_t length = std::min<uint64_t>(1 + random() % most, bytes.size() - at);
      const std::string_view data = std::string_view(bytes).substr(at, length);
      const uint64_t cut = random() % (length + 1);
      const std::vector<std::string_view> pieces{data.substr(0, cut), data.substr(cut)};
      const bool zero = data.find_first_not_of('\0') == std::string_view::npos;
      Extent extent{.offset = at, .length = length, .zero = zero};
      if (!zero) extent.pieces = pieces;
      const auto come = writer.Append(extent);
      ASSERT_OK(come);
      at += length;
      const uint64_t whole = at == bytes.size() ? at : at / kPageBytes * kPageBytes;
      EXPECT_EQ(!come->empty(), whole > present);
      present = whole;
      EXPECT_EQ(pages->PresentBytes(0, UINT64_MAX), present);
    }
    EXPECT_EQ(pages->TotalBytes(), bytes.size());
    std::string got(bytes.size(), '?');
    EXPECT_EQ(pages->Read({0, got.size()}, got.data(), Patience::kWait), Outcome::kRead);
    EXPECT_TRUE(got == bytes);
    for (uint64_t block = 0; block < bytes.size(); block += kMiB) {
      const uint64_t length = std::min(kMiB, bytes.size() - block);
      EXPECT_EQ(pages->Runs({block, length}, kMiB), CutIntoRuns(bytes.substr(block, length)));
    }
  }
  EXPECT_EQ(spoilt_.value(), 0u);
}

TEST_F(CachedPagesTest, RunsAreThoseOfWholePresentPagesOfOneBlock) {
  const std::string bytes = SampleBytes(2 * kMiB + 10, 2);
  const std::unique_ptr<CachedPages> pages = Make(bytes.size());
  const std::vector<std::string_view> all{bytes};
  CachedPages::Writer writer(pages.get(), 0);
  ASSERT_OK(writer.Append({.offset = 0, .length = bytes.size(), .pieces = all}));
  const auto none = [&](uint64_t offset, uint64_t length) {
    return pages->Runs({offset, length}, kMiB).empty();
  };
  EXPECT_FALSE(none(0, kMiB));
  EXPECT_FALSE(none(2 * kMiB, 10)) << "the end of the file";
  EXPECT_TRUE(none(0, 0));
  EXPECT_TRUE(none(1, kPageBytes));
  EXPECT_TRUE(none(0, 100));
  EXPECT_TRUE(none(kPageBytes, kMiB)) << "two blocks";
  EXPECT_TRUE(none(2 * kMiB, 11)) << "past the end";
  EXPECT_TRUE(pages->Runs({0, kMiB}, 100).empty()) << "less than a page";
}

TEST_F(CachedPagesTest, AllPagesThatDoNotMatchAreMissingAfterOneRead) {
  const std::string bytes = SampleBytes(kMiB, 3);
  const std::unique_ptr<CachedPages> pages = Make(bytes.size());
  const std::vector<std::string_view> all{bytes};
  CachedPages::Writer writer(pages.get(), 0);
  ASSERT_OK(writer.Append({.offset = 0, .length = bytes.size(), .pieces = all}));
  for (const uint64_t page : {3, 100, 255}) {
    ASSERT_OK(Behind().WriteAt(page * kPageBytes, "spoilt"));
  }
  std::string got(bytes.size(), '?');
  EXPECT_EQ(pages->Read({0, got.size()}, got.data(), Patience::kWait), Outcome::kSpoilt);
  EXPECT_EQ(spoilt_.value(), 3u);
  EXPECT_EQ(pages->TotalBytes(), kMiB - 3 * kPageBytes);
  for (const uint64_t page : {3, 100, 255}) EXPECT_FALSE(pages->present().IsSet(page));
  EXPECT_TRUE(pages->Runs({0, kMiB}, kMiB).empty());
  ASSERT_OK(Behind().Truncate(kPageBytes));
  EXPECT_EQ(pages->Read({kPageBytes, 10}, got.data(), Patience::kWait), Outcome::kUnread);
}

}  // namespace
}  // namespace peerchunk::test
