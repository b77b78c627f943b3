#include "storage/gcs_core/read_object.h"

#include <algorithm>
#include <limits>
#include <utility>

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/status.h"
#include "storage/gcs_core/object_requests.h"

namespace peerchunk {
namespace {

constexpr uint64_t kMaxOffset = std::numeric_limits<int64_t>::max();  // What the wire can say.

}  // namespace

ObjectReader::ObjectReader(GcsContext& context, std::string object, uint64_t offset,
                           std::optional<uint64_t> length, const ReadOptions& options)
    : context_(context),
      object_(std::move(object)),
      begin_(offset),
      offset_(offset),
      length_(length),
      limits_{options.deadline, options.cancellation},
      retry_(context, limits_, RetryPolicy::ForReads(context.tuning)),
      handed_out_(context.clock.Now()) {
  if (!options.version) return;
  if (!absl::SimpleAtoi(*options.version, &generation_) || generation_ <= 0) {
    status_ =
        absl::AbortedError(absl::StrCat("'", *options.version, "' is no version of an object"));
  }
}

ObjectReader::~ObjectReader() { Close(absl::OkStatus()); }

absl::StatusOr<std::optional<Extent>> ObjectReader::Next() {
  PEERCHUNK_RETURN_IF_ERROR(status_);
  retry_.Excuse(context_.clock.Now() - handed_out_);
  absl::StatusOr<bool> more = ReadMessage();
  handed_out_ = context_.clock.Now();
  if (!more.ok()) {
    Close(more.status());
    status_ = more.status();
    return status_;
  }
  if (!*more) {
    Close(absl::OkStatus());
    return std::nullopt;
  }
  Extent extent;
  extent.offset = offset_;
  extent.length = message_.content.size();
  extent.pieces = absl::MakeConstSpan(&message_.content, 1);
  offset_ += extent.length;
  return extent;
}

// True when message_ holds checked bytes from offset_; false at the end of the range.
absl::StatusOr<bool> ObjectReader::ReadMessage() {
  absl::Time waiting_since = absl::InfinitePast();  // The consumer's own time does not count.
  for (;;) {
    PEERCHUNK_RETURN_IF_ERROR(limits_.Check(context_.clock));
    if (!end_ && (length_ == 0u || offset_ > kMaxOffset)) PEERCHUNK_RETURN_IF_ERROR(Locate());
    if (end_ && offset_ >= *end_) return false;
    if (!stream_) {
      PEERCHUNK_RETURN_IF_ERROR(Open());
      waiting_since = absl::InfinitePast();
    }
    const bool waiting_for_first = first_message_;
    if (waiting_since == absl::InfinitePast()) waiting_since = context_.clock.Now();
    if (waiting_for_first) {
      attempt_->Expect(waiting_since, context_.tuning.first_byte,
                       context_.metrics.first_byte_stalls);
    } else {
      attempt_->Expect(waiting_since, context_.tuning.read_stall, context_.metrics.read_stalls);
    }
    const bool got = stream_->Read(message_);
    attempt_->Rest();
    if (got) {
      PEERCHUNK_RETURN_IF_ERROR(Accept());
      // Messages without data keep no stalled stream alive.
      if (!message_.content.empty()) return true;
      if (waiting_for_first) waiting_since = absl::InfinitePast();
      continue;
    }
    absl::Status status = stream_->Finish();
    if (status.ok() && !(end_ && offset_ >= *end_)) {
      status = absl::UnavailableError(absl::StrCat("the stream ended early, at byte ", offset_));
    }
    const size_t channel = attempt_->channel();
    status = attempt_->Settle(status);
    stream_.reset();
    attempt_.reset();
    if (!status.ok()) PEERCHUNK_RETURN_IF_ERROR(Recover(status, channel));
  }
}

uint64_t ObjectReader::Limit() const {
  if (end_) return *end_ - offset_;
  if (!length_) return 0;
  const uint64_t rest = *length_ - (offset_ - begin_);
  return rest > kMaxOffset ? 0 : rest;
}

absl::Status ObjectReader::Open() {
  attempt_ = std::make_unique<Attempt>(context_, limits_, token_, retry_.avoid());
  first_message_ = true;
  opened_ = context_.clock.Now();
  // Opening, too, waits for the connection.
  attempt_->Expect(opened_, context_.tuning.first_byte, context_.metrics.first_byte_stalls);
  if (offset_ > begin_) context_.metrics.read_resumes.Add();
  stream_ = attempt_->call().ReadObject(
      {.object = object_, .generation = generation_, .offset = offset_, .limit = Limit()});
  return absl::OkStatus();
}

// Ends the attempt under way, if there is one, with what this side makes of it.
void ObjectReader::Close(const absl::Status& status) {
  if (!stream_) return;
  stream_.reset();
  attempt_->Settle(status).IgnoreError();
  attempt_.reset();
}

// Takes over what the message says of the object and checks what it carries.
absl::Status ObjectReader::Accept() {
  if (first_message_) {
    first_message_ = false;
    context_.metrics.first_bytes.Add();
    context_.metrics.first_byte_microseconds.Add(static_cast<uint64_t>(
        std::max<int64_t>(0, absl::ToInt64Microseconds(context_.clock.Now() - opened_))));
    if (message_.content_start && *message_.content_start != offset_) {
      return absl::DataLossError(
          absl::StrCat("bytes from ", *message_.content_start, " came for those from ", offset_));
    }
    if (message_.metadata) {
      if (generation_ != 0 && message_.metadata->generation != generation_) {
        return absl::AbortedError(absl::StrCat("generation ", message_.metadata->generation,
                                               " came instead of ", generation_));
      }
      generation_ = message_.metadata->generation;
      if (message_.metadata->crc32c) object_crc32c_ = message_.metadata->crc32c;
    }
    if (message_.object_crc32c) object_crc32c_ = message_.object_crc32c;
  }
  std::optional<uint64_t> size = message_.complete_length;
  if (!size && message_.metadata) size = message_.metadata->size;
  if (size && size_ && *size != *size_) {
    return absl::DataLossError(absl::StrCat("the size changed from ", *size_, " to ", *size));
  }
  if (size && !size_) {
    size_ = size;
    if (begin_ > *size_)
      return absl::OutOfRangeError(absl::StrCat("the object has ", *size_, " bytes"));
    end_ = length_ ? begin_ + std::min(*length_, *size_ - begin_) : *size_;
  }
  return CheckContent();
}

absl::Status ObjectReader::CheckContent() {
  const std::string_view content = message_.content;
  if (content.empty()) return absl::OkStatus();
  if (!end_) return absl::InternalError("data came before the size of the object");
  if (content.size() > *end_ - offset_) {
    return absl::DataLossError(absl::StrCat("more bytes than asked for, from ", offset_));
  }
  if (!message_.content_crc32c) {
    // The object's own checksum says nothing about a range, and much too late.
    return absl::DataLossError(
        absl::StrCat("the message at byte ", offset_, " has no CRC32C to check it against"));
  }
  const uint32_t crc32c = Crc32c(content);
  if (*message_.content_crc32c != crc32c) {
    context_.metrics.checksum_mismatches.Add();
    return absl::DataLossError(absl::StrCat("CRC32C mismatch in the message at byte ", offset_));
  }
  crc32c_ = CombineCrc32c(crc32c_, crc32c, content.size());
  const bool whole = begin_ == 0 && offset_ + content.size() == *size_;
  if (whole && object_crc32c_ && *object_crc32c_ != crc32c_) {
    context_.metrics.checksum_mismatches.Add();
    return absl::DataLossError("CRC32C mismatch over the whole object");
  }
  context_.metrics.read_bytes.Add(content.size());
  retry_.Progress();
  return absl::OkStatus();
}

absl::Status ObjectReader::Recover(const absl::Status& status, size_t channel) {
  if (absl::IsNotFound(status)) return ExplainNotFound(status);
  // "Past the end" may also be the answer at the very end.
  if (absl::IsOutOfRange(status)) return Locate();
  return retry_.Next(status, channel);
}

// Learns the size from the object itself: end_ is set, or the offset lies beyond it.
absl::Status ObjectReader::Locate() {
  PEERCHUNK_ASSIGN_OR_RETURN(const GcsObject object, GetObject(context_, limits_, object_));
  if (generation_ != 0 && object.generation != generation_) {
    return absl::AbortedError(
        absl::StrCat("generation ", generation_, " was replaced by ", object.generation));
  }
  generation_ = object.generation;
  size_ = object.size;
  if (begin_ > object.size) {
    return absl::OutOfRangeError(absl::StrCat("the object has ", object.size, " bytes"));
  }
  end_ = begin_ + std::min(length_.value_or(object.size), object.size - begin_);
  // The service says the object ends before here, and the object says it does not.
  if (offset_ < *end_) return retry_.Next(absl::InternalError("a range inside was refused"), {});
  return absl::OkStatus();
}

absl::Status ObjectReader::ExplainNotFound(const absl::Status& not_found) {
  if (generation_ == 0) return not_found;
  absl::StatusOr<GcsObject> live = GetObject(context_, limits_, object_);
  if (!live.ok()) return live.status();
  return absl::AbortedError(
      absl::StrCat("generation ", generation_, " was replaced by ", live->generation));
}

}  // namespace peerchunk
