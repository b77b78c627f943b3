#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "peer/http2/connection.h"

namespace peerchunk::http2 {

// What the lock guards and what is the driver's is told apart below.
class Connection::Call {
 public:
  Call(std::shared_ptr<CallSink> given, std::string block, const Request& request,
       std::shared_ptr<BufferPool> pool)
      : head(std::move(block)),
        more_follow(request.more_follow),
        in_place(request.head_bytes > 0),
        assembler(in_place
                      ? MessageAssembler(std::move(pool), request.head_bytes,
                                         [sink = given.get()](auto message_head, size_t bytes) {
                                           return sink->PlaceTail(message_head, bytes);
                                         })
                      : MessageAssembler(std::move(pool))),
        sink(std::move(given)) {}

  // Under the connection's lock.
  uint32_t id = 0;  // 0: not begun yet.
  std::string head;
  std::string to_send;
  bool gathering = false;
  bool more_follow;
  bool half_closed = false;
  bool ended_by_peer = false;
  bool over = false;  // Nothing more goes out or comes in.
  int64_t send_window = 0;
  uint64_t taken = 0;  // Not yet given back to its window.
  int64_t receive_window = kCallWindow;

  // The driver's. With `in_place`, what the assembler fills is not all its own: see BeginFill.
  const bool in_place;
  MessageAssembler assembler;
  std::optional<HeaderList> headers;
  const std::shared_ptr<CallSink> sink;
};

}  // namespace peerchunk::http2
