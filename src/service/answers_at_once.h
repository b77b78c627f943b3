#pragma once

#include <memory>
#include <vector>

#include "peerchunk/template/template_cache.h"
#include "peerchunk/v1/chunk_service.pb.h"
#include "service/answer_parts.h"
#include "service/byte_budget.h"

namespace peerchunk {

// The answers to those reads of one message that take no waiting, on the queue's own thread,
// written one after the other into few slices. Borrows what it is made of. Used by one thread.
class AnswersAtOnce {
 public:
  AnswersAtOnce(TemplateCache* templates, ByteBudget::Account* account,
                const v1::ReadBuildFileRequest& request);
  ~AnswersAtOnce();

  // Writes the whole answer to a read of the message, when it takes no waiting. False: it does, or
  // it is an error, which the long way finds again.
  bool Add(const v1::FileRead& wire);

  // Those written, as messages.
  std::vector<AnswerParts> Take();

 private:
  class FilesOfMessage;
  class AnswerWriter;

  ByteBudget::Account* const account_;
  const std::unique_ptr<FilesOfMessage> files_;
  const std::unique_ptr<AnswerWriter> answers_;
};

}  // namespace peerchunk
