#include "peer/peer_attempt.h"

#include <algorithm>
#include <utility>

#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/status.h"

namespace peerchunk {

PeerAttempt::PeerAttempt(const SourceSet& sources, const PeerLink& peer,
                         std::shared_ptr<ChunkServiceClient> client, const Plan& plan,
                         const std::stop_token& stop)
    : sources_(sources),
      peer_(peer),
      client_(std::move(client)),
      plan_(plan),
      probe_(peer.state().breaker.Enter(sources.clock().Now(), plan.wants_bytes)),
      started_(sources.clock().Now()),
      stop_(stop),
      check_(plan.request.offset, plan.request.length),
      judge_speed_at_(plan.leave_at),
      rate_(sources.budgets().stall) {
  if (client_->IsConnected()) connected_at_ = started_;
  stream_ = client_->GetBuildFile(
      plan.request, {.deadline = plan.deadline, .cancellation = stop, .into = plan.into});
}

PeerAttempt::~PeerAttempt() {
  if (verdict_told_) return;
  if (bytes_ > 0) {
    peer_.state().breaker.OnBytes();
  } else {
    peer_.state().breaker.OnNoVerdict(probe_);
  }
}

void PeerAttempt::LeftSilent() {
  if (first_message_at_) return;
  const absl::Time now = sources_.clock().Now();
  peer_.state().first_byte.AddLowerBound(now - started_);
  // A dial that hangs longer than any hedge waits is a failure; a slow answer is not.
  if (verdict_told_ || client_->IsConnected()) return;
  if (now - started_ < sources_.budgets().hedge_ceiling) return;
  verdict_told_ = true;
  peer_.state().breaker.OnFailure(now, probe_);
}

absl::Time PeerAttempt::NextLimit(absl::Time now) {
  const PeerBudgets& budgets = sources_.budgets();
  absl::Time limit;
  if (first_message_at_) {
    limit = now + rate_.UntilNextSlot();
  } else if (connected_at_) {
    limit = *connected_at_ + budgets.first_byte;
  } else {
    limit = started_ + budgets.dial;
  }
  return std::min(limit, judge_speed_at_);
}

bool PeerAttempt::TooSlowForDeadline(absl::Time now) const {
  if (bytes_ == 0) return true;
  const FileHead& head = *check_.head();
  uint64_t rest = head.total_size - check_.next_offset();
  if (plan_.request.length) {
    const uint64_t done = check_.next_offset() - plan_.request.offset;
    rest = std::min(rest, *plan_.request.length - done);
  }
  const absl::Duration span = rate_.Full() ? sources_.budgets().stall : now - started_;
  const uint64_t bytes = rate_.Full() ? rate_.Bytes() : bytes_;
  return absl::ToDoubleSeconds(span) * static_cast<double>(rest) / static_cast<double>(bytes) >
         absl::ToDoubleSeconds(plan_.deadline - now);
}

std::optional<PeerEvent> PeerAttempt::Expired(absl::Time now) {
  const PeerBudgets& budgets = sources_.budgets();
  const bool leave = now >= judge_speed_at_;
  if (first_message_at_) {
    if (rate_.Full()) {
      const double floor = static_cast<double>(budgets.floor_bytes_per_second) *
                           absl::ToDoubleSeconds(budgets.stall);
      if (static_cast<double>(rate_.Bytes()) < floor) return PeerEvent::kStalled;
      if (!std::exchange(found_healthy_, true)) peer_.state().breaker.OnBytes();
    }
    if (!leave) return std::nullopt;
    judge_speed_at_ = now + rate_.UntilNextSlot();  // It may become slow yet.
    return TooSlowForDeadline(now) ? std::make_optional(PeerEvent::kOutOfBudget) : std::nullopt;
  }
  if (!connected_at_ && client_->IsConnected()) connected_at_ = now;
  const PeerEvent silent = connected_at_ ? PeerEvent::kFirstByteTimeout : PeerEvent::kDialTimeout;
  if (now >= (connected_at_ ? *connected_at_ + budgets.first_byte : started_ + budgets.dial)) {
    return silent;
  }
  if (!leave) return std::nullopt;
  // A caller in a hurry does not make the peer a bad one.
  return now - started_ >= budgets.hedge_ceiling ? silent : PeerEvent::kOutOfBudget;
}

PeerAttempt::Step PeerAttempt::Advance(absl::Time wake_at) {
  while (true) {
    if (check_.finished()) return End();
    const absl::Time before = sources_.clock().Now();
    if (const auto event = Expired(before)) {
      if (!first_message_at_) peer_.state().first_byte.AddLowerBound(before - started_);
      return Fail(*event, absl::DeadlineExceededError(absl::StrCat(
                              AbslView(ReactTo(*event).reason), " after ",
                              absl::FormatDuration(before - started_), " and ", bytes_, " bytes")));
    }
    if (before >= wake_at) return {.kind = Step::Kind::kWaiting};
    auto message = stream_->Next(std::min(NextLimit(before), wake_at));
    const absl::Time now = sources_.clock().Now();
    if (first_message_at_) rate_.Wait(now - before);
    if (!message.ok()) {
      if (absl::IsDeadlineExceeded(message.status()) && stream_->IsAlive()) continue;
      // What the read itself ended is no fault of the peer.
      if (stop_.stop_requested()) return Fail(PeerEvent::kLostToBase, message.status());
      if (now >= plan_.deadline) return Fail(PeerEvent::kOutOfBudget, message.status());
      const PeerEvent event = ClassifyStatus(message.status(), plan_.range_known_valid);
      const absl::Duration hint = RetryAfter(message.status()).value_or(absl::ZeroDuration());
      return Fail(event, message.status(), hint);
    }
    if (!message->has_value()) {
      return Fail(PeerEvent::kCutShort,
                  absl::DataLossError("the peer ended the stream before the last message"));
    }
    if (!first_message_at_) {
      first_message_at_ = now;
      peer_.state().first_byte.AddSample(now - started_);
    }
    return Judge(**message);
  }
}

PeerAttempt::Step PeerAttempt::Judge(const PeerMessage& message) {
  const bool first = !check_.head().has_value();
  if (absl::Status checked = check_.Check(message); !checked.ok()) {
    Step step = Fail(PeerEvent::kBadBytes, std::move(checked));
    if (message.extent && !message.extent->zero) {
      for (const std::string_view piece : message.extent->pieces)
        step.dropped_bytes += piece.size();
    }
    return step;
  }
  if (message.last) sources_.knowledge->ObserveStatus(peer_.standing(), message.status);
  if (first) {
    if (Step step = JudgeHead(*message.head, message); step.kind == Step::Kind::kFailed) {
      return step;
    }
  }
  if (message.extent) {
    const PeerExtent& extent = *message.extent;
    if (bytes_ == 0) sources_.knowledge->OnBytes(peer_.standing());
    bytes_ += extent.length;
    rate_.Add(extent.length);
    return {
        .kind = Step::Kind::kExtent,
        .extent = {.offset = extent.offset,
                   .length = extent.length,
                   .zero = extent.zero,
                   .pieces = extent.zero ? absl::Span<const std::string_view>() : extent.pieces},
        .crc32c = extent.zero ? Crc32cOfZeros(extent.length) : extent.crc32c};
  }
  return check_.finished() ? End() : Step{.kind = Step::Kind::kHead};
}

PeerAttempt::Step PeerAttempt::JudgeHead(const FileHead& head, const PeerMessage& message) {
  if (!sources_.knowledge->ObserveHead(peer_.standing(), plan_.request.file.kind, head,
                                       plan_.least_size)) {
    std::string cause = "the peer declares another size or checksum than before";
    if (head.availability == Availability::kAbsent) {
      cause = "the peer says that the build has no such file, which was declared before";
    } else if (head.total_size < plan_.least_size) {
      cause = absl::StrCat("the peer declares ", head.total_size,
                           " bytes of a file that has at least ", plan_.least_size);
    }
    Step step = Fail(PeerEvent::kContradiction, absl::DataLossError(cause));
    if (message.extent) step.dropped_bytes = message.extent->zero ? 0 : message.extent->length;
    return step;
  }
  switch (head.availability) {
    case Availability::kAvailable:
      if (!check_.past_the_end()) return {.kind = Step::Kind::kHead};
      return Fail(
          plan_.range_known_valid ? PeerEvent::kContradiction : PeerEvent::kBadRangeAnswer,
          absl::OutOfRangeError(absl::StrCat("offset ", plan_.request.offset,
                                             " is beyond the file's ", head.total_size, " bytes")));
    case Availability::kNotAvailable:
      return Fail(PeerEvent::kNotAvailable,
                  absl::NotFoundError("the peer does not have this build"));
    case Availability::kAbsent:
      return Fail(PeerEvent::kAbsent, absl::NotFoundError("the build has no such file"));
    case Availability::kUseStorage:
      if (!plan_.request.even_if_durable) {
        return Fail(PeerEvent::kUseStorage, absl::UnavailableError("durable: read the base"));
      }
      return Fail(PeerEvent::kUnreachable,
                  absl::UnavailableError("the peer sends readers to the base, come what may"));
    case Availability::kNotYet:
      return Fail(PeerEvent::kNotYet, absl::UnavailableError("the peer does not have it yet"),
                  head.retry_after);
  }
  return Fail(PeerEvent::kBadBytes, absl::DataLossError("the peer sent an unknown availability"));
}

PeerAttempt::Step PeerAttempt::End() {
  if (!check_.stopped_short()) return {.kind = Step::Kind::kFinished};
  return Fail(PeerEvent::kStoppedShort,
              absl::UnavailableError(absl::StrCat(
                  "the peer has this file only in part; it stopped at ", check_.next_offset())));
}

PeerAttempt::Step PeerAttempt::Fail(PeerEvent event, absl::Status cause, absl::Duration hint) {
  // Good bytes before a failure do not make up for it, or a peer that stalls each time would be
  // asked each time.
  const PeerReaction reaction = ReactTo(event);
  if (reaction.breaker_failure) {
    verdict_told_ = true;
    peer_.state().breaker.OnFailure(sources_.clock().Now(), probe_);
  } else if (reaction.quarantine) {
    verdict_told_ = true;
    peer_.state().breaker.OnNoVerdict(probe_);
  }
  return {.kind = Step::Kind::kFailed, .event = event, .cause = std::move(cause), .hint = hint};
}

}  // namespace peerchunk
