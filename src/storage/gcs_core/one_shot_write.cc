#include "storage/gcs_core/one_shot_write.h"

#include <algorithm>
#include <string>

#include <absl/strings/str_cat.h>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/status.h"
#include "storage/gcs_core/retry.h"
#include "storage/gcs_core/upload_lanes.h"

namespace peerchunk {
namespace {

// How one attempt ended: locally, which no further attempt mends, or at the server.
struct AttemptEnd {
  absl::Status local;
  absl::StatusOr<GcsWriteStatus> answer = absl::UnknownError("no answer");
};

// Sends the whole source over one stream.
AttemptEnd Send(GcsContext& context, const ObjectWrite& write, const UploadSource& source,
                uint32_t crc32c, RetryLoop& loop, Attempt& attempt, std::string& buffer) {
  const GcsWriteSpec spec{write.object, write.metadata, write.if_generation, source.size()};
  attempt.Expect(context.clock.Now(), context.tuning.write_stall, context.metrics.write_stalls);
  const std::unique_ptr<GcsWriteStream> stream = attempt.call().WriteObject();
  attempt.Rest();
  AttemptEnd end;
  uint64_t offset = 0;
  do {
    buffer.resize(std::min(source.size() - offset, kGcsMessageBytes));
    end.local = source.ReadAt(offset, absl::MakeSpan(buffer));
    if (end.local.ok() && offset + buffer.size() == source.size()) {
      end.local = source.CheckUnchanged();
    }
    const absl::Time asked = context.clock.Now();
    if (end.local.ok()) end.local = context.lanes->Spend(buffer.size(), write.limits);
    loop.Excuse(context.clock.Now() - asked);
    if (!end.local.ok()) return end;
    GcsWriteMessage message;
    if (offset == 0) message.spec = &spec;
    message.offset = offset;
    message.content = &buffer;
    message.content_crc32c = Crc32c(buffer);
    message.finish = offset + buffer.size() == source.size();
    if (message.finish) message.object_crc32c = crc32c;
    attempt.Expect(context.clock.Now(), context.tuning.write_stall, context.metrics.write_stalls);
    const bool written = stream->Write(message);
    attempt.Rest();
    if (!written) break;
    context.metrics.written_bytes.Add(buffer.size());
    offset += buffer.size();
  } while (offset < source.size());
  attempt.Expect(context.clock.Now(), context.tuning.write_answer, context.metrics.answer_stalls);
  end.answer = stream->Finish();
  return end;
}

}  // namespace

absl::StatusOr<GcsObject> WriteOneShot(GcsContext& context, ObjectWrite write,
                                       const UploadSource& source, uint32_t crc32c) {
  RetryLoop loop(context, write.limits, RetryPolicy::ForWrites(context.tuning));
  const std::string token = GcsContext::NewToken();
  std::string buffer;
  bool mismatched = false;
  for (;;) {
    PEERCHUNK_RETURN_IF_ERROR(write.limits.Check(context.clock));
    size_t channel;
    absl::Status status;
    {
      Attempt attempt(context, write.limits, token, loop.avoid());
      channel = attempt.channel();
      AttemptEnd end = Send(context, write, source, crc32c, loop, attempt, buffer);
      if (!end.local.ok()) {
        attempt.Settle(end.local).IgnoreError();
        return end.local;
      }
      status = end.answer.status();
      if (status.ok() && !end.answer->resource) {
        status = absl::InternalError("the answer to a whole object has no object");
      }
      status = attempt.Settle(status);
      if (status.ok()) return *std::move(end.answer->resource);
    }
    if (absl::IsFailedPrecondition(status)) {
      PEERCHUNK_ASSIGN_OR_RETURN(
          std::optional<GcsObject> object,
          ResolveFailedPrecondition(context, write, source.size(), [&] { return crc32c; }));
      if (object) return *std::move(object);
    }
    if (MayBeChecksumMismatch(status)) {
      context.metrics.checksum_mismatches.Add();
      PEERCHUNK_ASSIGN_OR_RETURN(const uint32_t now, HashSource(source, 0, source.size(), buffer,
                                                                context.clock, write.limits));
      if (now != crc32c) return absl::DataLossError("the source changed while it was sent");
      if (mismatched) {
        return absl::DataLossError(
            absl::StrCat("the service refused the bytes twice: ", status.ToString()));
      }
      mismatched = true;
      continue;
    }
    if (OutcomeUnknown(status)) write.outcome_unknown = true;
    PEERCHUNK_RETURN_IF_ERROR(loop.Next(status, channel));
  }
}

}  // namespace peerchunk
