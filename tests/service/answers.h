#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/peer/chunk_service_client.h"

namespace peerchunk::test {

// A whole GetBuildFile as a careful reader sees it.
struct Answer {
  std::optional<FileHead> head;
  std::string bytes;
  int messages = 0;
  bool last = false;
  BuildStatus end_status;
  uint64_t next_offset = 0;
  absl::Status status;
};

// Adds one message to `answer`; checks order and checksum.
inline void Take(const PeerMessage& message, uint64_t offset, Answer& answer) {
  if (message.head) {
    EXPECT_EQ(answer.messages, 0) << "only the first message has a head";
    answer.head = message.head;
  }
  ++answer.messages;
  if (message.extent) {
    EXPECT_EQ(message.extent->offset, offset + answer.bytes.size());
    std::string data(message.extent->zero ? message.extent->length : 0, '\0');
    for (std::string_view piece : message.extent->pieces) data.append(piece);
    EXPECT_EQ(data.size(), message.extent->length);
    EXPECT_TRUE(message.extent->zero || Crc32c(data) == message.extent->crc32c);
    answer.bytes += data;
  }
  if (message.last) {
    answer.last = true;
    answer.end_status = message.status;
    answer.next_offset = message.next_offset;
  }
}

inline void ReadToEnd(PeerStream& stream, uint64_t offset, Answer& answer) {
  while (true) {
    auto message = stream.Next(absl::InfiniteFuture());
    if (!message.ok()) {
      answer.status = message.status();
      return;
    }
    if (!message->has_value()) return;
    Take(**message, offset, answer);
  }
}

inline Answer Read(ChunkServiceClient& client, const PeerRequest& request) {
  Answer answer;
  ReadToEnd(*client.GetBuildFile(request, {}), request.offset, answer);
  return answer;
}

}  // namespace peerchunk::test
