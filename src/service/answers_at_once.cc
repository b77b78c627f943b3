#include "service/answers_at_once.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include "service/framing.h"
#include "service/wire.h"

namespace peerchunk {
namespace {

constexpr uint64_t kInlineBytes = 64 * kKiB;  // Read on the queue's thread, if in memory.
// Data up to this is put into the message: a slice of its own costs more.
constexpr size_t kCopyBytes = 16 * kKiB;
// A slice that short answers share.
constexpr size_t kRoomBytes = 64 * kKiB;

size_t MostBytesOfAnswers(const v1::ReadBuildFileRequest& request) {
  size_t most = 0;
  for (const v1::FileRead& read : request.reads()) {
    most += kPartBytes + (read.read().length() <= kCopyBytes ? read.read().length() : 0);
  }
  return most;
}

}  // namespace

// Answers that are ready at once, written one after the other into few slices.
class AnswersAtOnce::AnswerWriter {
 public:
  // `most_bytes`: what all of Reserve's are together, at most.
  explicit AnswerWriter(size_t most_bytes) : most_bytes_(most_bytes) {}

  // Room for `bytes`.
  uint8_t* Reserve(size_t bytes) {
    if (used_ + bytes > room_.size()) {
      CloseRoom();
      room_ = grpc::Slice(std::max(bytes, std::min(most_bytes_, kRoomBytes)));
      used_ = closed_ = 0;
    }
    most_bytes_ -= std::min(most_bytes_, bytes);
    return const_cast<uint8_t*>(room_.begin()) + used_;
  }
  // `end`, in what was reserved last, is where the answer ends, but for `data` if it is there.
  void Commit(const uint8_t* end, std::optional<grpc::Slice> data, ByteBudget::Lease lease) {
    const auto used = static_cast<size_t>(end - room_.begin());
    parts_.bytes += used - used_ + (data ? data->size() : 0);
    used_ = used;
    if (data) {
      CloseRoom();
      parts_.slices.push_back(*std::move(data));
    }
    parts_.lease.Merge(std::move(lease));
    ++parts_.ends;
    if (parts_.bytes >= kMessageBytes) CloseParts();
  }
  std::vector<AnswerParts> Take() {
    CloseParts();
    return std::move(done_);
  }

 private:
  void CloseRoom() {
    if (used_ > closed_) parts_.slices.push_back(room_.sub(closed_, used_));
    closed_ = used_;
  }
  void CloseParts() {
    CloseRoom();
    if (parts_.ends > 0) done_.push_back(std::exchange(parts_, {}));
  }

  size_t most_bytes_;
  grpc::Slice room_;
  size_t used_ = 0;
  size_t closed_ = 0;  // Of `used_`, in slices already.
  AnswerParts parts_;
  std::vector<AnswerParts> done_;
};

// The files that the reads of one message name: few, and each is looked up once.
class AnswersAtOnce::FilesOfMessage {
 public:
  struct File {
    std::string build_id;
    v1::BuildFile file;
    bool even_if_durable;
    absl::StatusOr<ServedFile> served;
    std::optional<WholeAnswerFramer> framer;
  };

  explicit FilesOfMessage(TemplateCache* templates) : templates_(templates) {}

  // Null: it takes more than a look, or is an error.
  const File* Find(const v1::GetBuildFileRequest& read) {
    for (const std::unique_ptr<File>& file : files_) {
      if (file->file == read.file() && file->even_if_durable == read.even_if_durable() &&
          file->build_id == read.build_id()) {
        return file->framer ? file.get() : nullptr;
      }
    }
    if (files_.size() == kMostFiles) return nullptr;
    files_.push_back(std::make_unique<File>(
        File{read.build_id(), read.file(), read.even_if_durable(), LookUp(read), std::nullopt}));
    File& file = *files_.back();
    if (file.served.ok()) file.framer.emplace(file.served->head);
    return file.framer ? &file : nullptr;
  }

 private:
  static constexpr size_t kMostFiles = 16;

  absl::StatusOr<ServedFile> LookUp(const v1::GetBuildFileRequest& read) {
    PEERCHUNK_ASSIGN_OR_RETURN(const BuildFileId id, FileFromWire(read.build_id(), read.file()));
    return templates_->ResolveOpen(id, read.even_if_durable());
  }

  TemplateCache* const templates_;
  std::vector<std::unique_ptr<File>> files_;
};

AnswersAtOnce::AnswersAtOnce(TemplateCache* templates, ByteBudget::Account* account,
                             const v1::ReadBuildFileRequest& request)
    : account_(account),
      files_(std::make_unique<FilesOfMessage>(templates)),
      answers_(std::make_unique<AnswerWriter>(MostBytesOfAnswers(request))) {}

AnswersAtOnce::~AnswersAtOnce() = default;

std::vector<AnswerParts> AnswersAtOnce::Take() { return answers_->Take(); }

bool AnswersAtOnce::Add(const v1::FileRead& wire) {
  const v1::GetBuildFileRequest& read = wire.read();
  const bool in_memory_only =
      read.file() == v1::BUILD_FILE_MEMFILE || read.file() == v1::BUILD_FILE_ROOTFS;
  if (!in_memory_only || !read.has_length() || read.length() > kInlineBytes) return false;
  const FilesOfMessage::File* const file = files_->Find(read);
  if (file == nullptr) return false;
  const WholeAnswerFramer& framer = *file->framer;
  std::optional<ByteRange> range = ByteRange{0, 0};
  if (file->served->head.availability == Availability::kAvailable) {
    if (file->served->file == nullptr) return false;
    range = ByteRange::Clip(read.offset(), read.length(), file->served->head.total_size);
  }
  if (!range) return false;
  auto lease = account_->TryAcquire(Priority::kDemand, range->length + kPartBytes);
  if (!lease) return false;
  const bool copied = range->length <= kCopyBytes;
  uint8_t* const out = answers_->Reserve(framer.MostBytes() + (copied ? range->length : 0));
  if (range->empty()) {
    answers_->Commit(framer.Write(wire.id(), range->offset, 0, 0, 0, out), {}, *std::move(lease));
    return true;
  }
  std::optional<grpc::Slice> slice;
  if (!copied) slice.emplace(range->length);
  uint8_t* const data = copied ? out + framer.MostBytes() : const_cast<uint8_t*>(slice->begin());
  ReadOptions options;
  options.relayed = true;
  options.priority = read.prefetch() ? Priority::kPrefetch : Priority::kDemand;
  const std::vector<Run> runs = file->served->file->TryReadRuns(
      range->offset, range->length, absl::MakeSpan(reinterpret_cast<char*>(data), range->length),
      options);
  // What is partly zero or partly here takes the long way.
  if (runs.size() != 1 || runs[0].length != range->length) return false;
  if (runs[0].zero) {
    answers_->Commit(framer.Write(wire.id(), range->offset, range->length, 0, 0, out), {},
                     *std::move(lease));
    return true;
  }
  uint8_t* end = framer.Write(wire.id(), range->offset, 0, runs[0].crc32c, range->length, out);
  if (copied) {
    std::memmove(end, data, range->length);
    end += range->length;
  }
  answers_->Commit(end, std::move(slice), *std::move(lease));
  return true;
}

}  // namespace peerchunk
