#include "base/bulk_copy.h"

#include <string>

#include <gtest/gtest.h>

#include "tests/support/sample_bytes.h"

namespace peerchunk {
namespace {

TEST(BulkCopyTest, AnyLengthAtAnyAlignmentIsCopiedAndNothingElse) {
  const std::string from = test::SampleBytes(4096, 1);
  for (size_t source = 0; source < 40; source += 13) {
    for (size_t target = 0; target < 40; ++target) {
      for (const size_t length : {0, 1, 31, 32, 127, 128, 129, 160, 1000, 4000}) {
        std::string to(4200, '?');
        CopyPastCaches(to.data() + target, from.data() + source, length);
        std::string expected(4200, '?');
        expected.replace(target, length, from, source, length);
        ASSERT_EQ(to, expected) << source << " " << target << " " << length;
      }
    }
  }
}

}  // namespace
}  // namespace peerchunk
