#include "storage/gcs_core/resumable_write.h"

#include <algorithm>
#include <utility>

#include <absl/strings/str_cat.h>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/status.h"
#include "storage/gcs_core/gcs_errors.h"
#include "storage/gcs_core/object_requests.h"
#include "storage/gcs_core/upload_lanes.h"

namespace peerchunk {
namespace {

constexpr int kMostSessionsLost = 2;

const std::string& TokenIn(std::string& token) {
  if (token.empty()) token = GcsContext::NewToken();
  return token;
}

}  // namespace

ResumableWrite::ResumableWrite(GcsContext& context, ObjectWrite write, const UploadSource& source,
                               Range range, std::optional<uint32_t> crc32c, std::string upload_id,
                               std::function<void(const std::string&)> on_session)
    : context_(context),
      write_(std::move(write)),
      source_(source),
      range_(range),
      expected_(crc32c),
      on_session_(std::move(on_session)),
      loop_(context_, write_.limits, RetryPolicy::ForWrites(context.tuning)),
      upload_id_(std::move(upload_id)) {
  if (!upload_id_.empty()) write_.outcome_unknown = true;
}

absl::StatusOr<GcsObject> ResumableWrite::Run() {
  for (;;) {
    Step step;
    step.local = write_.limits.Check(context_.clock);
    if (step.local.ok()) step = Advance();
    absl::Status status = step.local;
    if (status.ok() && !step.server.ok()) status = Recover(step, step.object);
    if (status.ok() && step.object) {
      status = Confirm(*step.object);
      if (status.ok()) return *std::move(step.object);
      if (absl::IsDataLoss(status)) status = RecoverFromMismatch(status);
    }
    if (status.ok()) continue;
    if (!write_.WorthResumingAfter(status)) CancelSession();
    return status;
  }
}

ResumableWrite::Step ResumableWrite::Advance() {
  if (upload_id_.empty()) return BeginSession();
  if (!known_) return Query();
  return SendSegment();
}

ResumableWrite::Step ResumableWrite::BeginSession() {
  Step step;
  Attempt attempt(context_, write_.limits, TokenIn(begin_token_), loop_.avoid());
  step.channel = attempt.channel();
  attempt.Expect(context_.clock.Now(), context_.tuning.answer, context_.metrics.answer_stalls);
  // Without a size: with one, the service would refuse to half-close at a segment's end.
  const absl::StatusOr<std::string> id = attempt.call().StartResumableWrite(
      {write_.object, write_.metadata, write_.if_generation, std::nullopt});
  absl::Status status = id.status();
  if (status.ok() && id->empty()) status = absl::InternalError("a session without an id");
  step.server = attempt.Settle(status);
  if (!step.server.ok()) return step;
  begin_token_.clear();
  upload_id_ = *id;
  persisted_ = 0;
  known_ = true;
  on_session_(upload_id_);
  return step;
}

ResumableWrite::Step ResumableWrite::Query() {
  Attempt attempt(context_, write_.limits, TokenIn(query_token_), loop_.avoid());
  attempt.Expect(context_.clock.Now(), context_.tuning.answer, context_.metrics.answer_stalls);
  const absl::StatusOr<GcsWriteStatus> answer = attempt.call().QueryWriteStatus(upload_id_);
  Step step;
  step.channel = attempt.channel();
  step.server = attempt.Settle(answer.status());
  if (!step.server.ok()) return step;
  query_token_.clear();
  step = Take(*answer, length());
  if (step.server.ok() && persisted_ > 0) context_.metrics.write_resumes.Add();
  return step;
}

ResumableWrite::Step ResumableWrite::SendSegment() {
  Step step;
  const absl::StatusOr<uint32_t> crc32c = CrcUpTo(persisted_);
  step.local = crc32c.status();
  if (!step.local.ok()) return step;
  const uint64_t from = persisted_;
  uint64_t position = from;
  absl::StatusOr<GcsWriteStatus> answer;
  {
    Attempt attempt(context_, write_.limits, TokenIn(write_token_), loop_.avoid());
    step.channel = attempt.channel();
    attempt.Expect(context_.clock.Now(), context_.tuning.write_stall,
                   context_.metrics.write_stalls);
    const std::unique_ptr<GcsWriteStream> stream = attempt.call().WriteObject();
    attempt.Rest();
    step.local = SendMessages(attempt, *stream, *crc32c, position);
    if (!step.local.ok()) {
      attempt.Settle(step.local).IgnoreError();
      return step;
    }
    attempt.Expect(context_.clock.Now(), context_.tuning.write_answer,
                   context_.metrics.answer_stalls);
    answer = stream->Finish();
    step.server = attempt.Settle(answer.status());
  }
  if (!step.server.ok()) return step;
  const std::optional<size_t> channel = step.channel;
  step = Take(*answer, position);
  step.channel = channel;
  if (step.server.ok() && !step.object && persisted_ <= from) {
    step.server = absl::UnavailableError(absl::StrCat("nothing was persisted beyond byte ", from));
  }
  return step;
}

// Sends messages from `position`, which it moves, to the end of the segment or of the range. OK
// also when the stream broke.
absl::Status ResumableWrite::SendMessages(Attempt& attempt, GcsWriteStream& stream, uint32_t crc32c,
                                          uint64_t& position) {
  const uint64_t from = position;
  const absl::Time started = context_.clock.Now();
  for (;;) {
    // Up to the next checkpoint, unless the server stands where that is no multiple of its quantum.
    const uint64_t most = position % kGcsQuantumBytes == 0
                              ? kGcsMessageBytes - position % kGcsMessageBytes
                              : kGcsMessageBytes;
    buffer_.resize(std::min(most, length() - position));
    PEERCHUNK_RETURN_IF_ERROR(source_.ReadAt(range_.begin + position, absl::MakeSpan(buffer_)));
    const uint32_t piece = Crc32c(buffer_);
    crc32c = CombineCrc32c(crc32c, piece, buffer_.size());
    const uint64_t next = position + buffer_.size();
    PEERCHUNK_RETURN_IF_ERROR(Checkpoint(next, crc32c));
    const absl::Time asked = context_.clock.Now();
    PEERCHUNK_RETURN_IF_ERROR(context_.lanes->Spend(buffer_.size(), write_.limits));
    loop_.Excuse(context_.clock.Now() - asked);
    GcsWriteMessage message;
    if (position == from) message.upload_id = &upload_id_;
    message.offset = position;
    message.content = &buffer_;
    message.content_crc32c = piece;
    message.finish = next == length();
    if (message.finish) {
      PEERCHUNK_RETURN_IF_ERROR(source_.CheckUnchanged());
      if (expected_ && *expected_ != crc32c) {
        return absl::DataLossError("the source does not have the CRC32C that was promised");
      }
      message.object_crc32c = crc32c;
    }
    attempt.Expect(context_.clock.Now(), context_.tuning.write_stall,
                   context_.metrics.write_stalls);
    const bool written = stream.Write(message);
    attempt.Rest();
    if (!written) return absl::OkStatus();
    context_.metrics.written_bytes.Add(buffer_.size());
    position = next;
    if (message.finish || position - from >= context_.tuning.segment_bytes ||
        context_.clock.Now() - started >= context_.tuning.segment_time) {
      return absl::OkStatus();
    }
  }
}

ResumableWrite::Step ResumableWrite::Take(const GcsWriteStatus& answer, uint64_t sent) {
  Step step;
  if (answer.resource) {
    step.object = answer.resource;
    return step;
  }
  if (answer.persisted_size > sent) {
    step.server = absl::OutOfRangeError(
        absl::StrCat("the server has ", answer.persisted_size, " bytes of ", sent));
    return step;
  }
  if (answer.persisted_crc32c) {
    const absl::StatusOr<uint32_t> ours = CrcUpTo(answer.persisted_size);
    step.local = ours.status();
    if (!step.local.ok()) return step;
    if (*ours != *answer.persisted_crc32c) {
      step.server = absl::DataLossError(absl::StrCat("the first ", answer.persisted_size,
                                                     " bytes at the server differ from ours"));
      return step;
    }
  }
  persisted_ = answer.persisted_size;
  known_ = true;
  write_token_.clear();
  if (persisted_ > best_) {
    best_ = persisted_;
    loop_.Progress();
  }
  return step;
}

absl::Status ResumableWrite::Confirm(GcsObject& object) {
  PEERCHUNK_ASSIGN_OR_RETURN(crc32c_, CrcUpTo(length()));
  if (expected_ && *expected_ != *crc32c_) {
    return absl::DataLossError("the source does not have the CRC32C that was promised");
  }
  const absl::Status status = ConfirmObject(context_, write_.limits, object, length(), *crc32c_);
  if (absl::IsDataLoss(status)) {
    // This session made it, and create-only would keep the right bytes out.
    const CallLimits limits{context_.clock.Now() + context_.tuning.clean_up, {}};
    DeleteObject(context_, limits, object.name, object.generation).IgnoreError();
  }
  return status;
}

absl::Status ResumableWrite::Recover(const Step& step, std::optional<GcsObject>& object) {
  const absl::Status& status = step.server;
  known_ = false;
  if (OutcomeUnknown(status)) write_.outcome_unknown = true;
  if (absl::IsNotFound(status) && !upload_id_.empty()) {
    if (++sessions_lost_ > kMostSessionsLost) {
      return absl::UnavailableError(absl::StrCat("the upload session was lost ", sessions_lost_,
                                                 " times: ", status.message()));
    }
    upload_id_.clear();
    write_.outcome_unknown = true;
    Restart();
    return absl::OkStatus();
  }
  if (absl::IsOutOfRange(status) && !upload_id_.empty()) {
    ++out_of_range_;
    if (out_of_range_ > 2) return status;
    if (out_of_range_ == 2) Restart();
    return absl::OkStatus();
  }
  if (absl::IsFailedPrecondition(status)) {
    PEERCHUNK_ASSIGN_OR_RETURN(object, ResolveFailedPrecondition(context_, write_, length(), [&] {
                                 return CrcUpTo(length());
                               }));
    if (object) return absl::OkStatus();
  }
  if (MayBeChecksumMismatch(status) && !upload_id_.empty()) {
    context_.metrics.checksum_mismatches.Add();
    return RecoverFromMismatch(status);
  }
  return loop_.Next(status, step.channel);
}

absl::Status ResumableWrite::RecoverFromMismatch(const absl::Status& status) {
  PEERCHUNK_RETURN_IF_ERROR(HashAgain());
  if (mismatched_) {
    return absl::DataLossError(absl::StrCat("the bytes arrived wrong twice: ", status.ToString()));
  }
  mismatched_ = true;
  Restart();
  return absl::OkStatus();
}

// DataLoss when the source is not any more what was sent.
absl::Status ResumableWrite::HashAgain() {
  PEERCHUNK_RETURN_IF_ERROR(source_.CheckUnchanged());
  const uint64_t end = crc32c_ ? length() : checkpoints_.size() * kGcsMessageBytes;
  if (end == 0) return absl::OkStatus();
  PEERCHUNK_ASSIGN_OR_RETURN(const uint32_t now,
                             HashSource(source_, range_.begin, range_.begin + end, buffer_,
                                        context_.clock, write_.limits));
  if (now == (crc32c_ ? *crc32c_ : checkpoints_.back())) return absl::OkStatus();
  return absl::DataLossError("the source changed while it was sent");
}

// The next step begins a new session.
void ResumableWrite::Restart() {
  CancelSession();
  known_ = false;
  persisted_ = 0;
  best_ = 0;
  write_token_.clear();
  query_token_.clear();
  context_.metrics.session_restarts.Add();
}

// Tells the server, as far as it can be told quickly, that nobody will go on with the session. Also
// for a caller who has cancelled.
void ResumableWrite::CancelSession() {
  if (upload_id_.empty()) return;
  CancelSessions(context_, {upload_id_}, loop_.avoid());
  upload_id_.clear();
}

absl::StatusOr<uint32_t> ResumableWrite::CrcUpTo(uint64_t position) {
  if (position == length() && crc32c_) return *crc32c_;
  const uint64_t whole = std::min<uint64_t>(position / kGcsMessageBytes, checkpoints_.size());
  uint32_t crc32c = whole == 0 ? 0 : checkpoints_[whole - 1];
  for (uint64_t at = whole * kGcsMessageBytes; at < position; at += buffer_.size()) {
    PEERCHUNK_RETURN_IF_ERROR(write_.limits.Check(context_.clock));
    buffer_.resize(std::min(kGcsMessageBytes, position - at));
    PEERCHUNK_RETURN_IF_ERROR(source_.ReadAt(range_.begin + at, absl::MakeSpan(buffer_)));
    crc32c = ExtendCrc32c(crc32c, buffer_);
    PEERCHUNK_RETURN_IF_ERROR(Checkpoint(at + buffer_.size(), crc32c));
  }
  return crc32c;
}

absl::Status ResumableWrite::Checkpoint(uint64_t position, uint32_t crc32c) {
  const auto changed = [] { return absl::DataLossError("the source changed while it was sent"); };
  if (position == length()) {
    if (crc32c_ && *crc32c_ != crc32c) return changed();
    crc32c_ = crc32c;
    return absl::OkStatus();
  }
  if (position == 0 || position % kGcsMessageBytes != 0) return absl::OkStatus();
  const size_t index = position / kGcsMessageBytes - 1;
  if (index < checkpoints_.size() && checkpoints_[index] != crc32c) return changed();
  if (index == checkpoints_.size()) checkpoints_.push_back(crc32c);
  return absl::OkStatus();
}

}  // namespace peerchunk
