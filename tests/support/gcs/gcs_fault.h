#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <random>
#include <string>

#include <absl/status/status.h>

namespace peerchunk::test {

enum class GcsRpc {
  kGetObject,
  kReadObject,
  kStartResumableWrite,
  kQueryWriteStatus,
  kCancelResumableWrite,
  kWriteObject,
  kComposeObject,
  kDeleteObject,
  kListObjects,
};

// Something that goes wrong with one call.
struct GcsFault {
  enum class Kind {
    kNone,
    kError,         // The call ends with `code` after `after` messages.
    kLostAnswer,    // The request is carried out, the call ends with `code`.
    kStall,         // Nothing more after `after` messages.
    kSlow,          // Time passes once before message `after`.
    kUnchecked,     // Message `after` that is read has no checksum.
    kWrongBytes,    // In a message that is read, with the checksum of the right ones.
    kForgedBytes,   // The same, with a checksum that fits.
    kEndsEarly,     // A read ends with OK after `after` messages.
    kPersistsLess,  // Half of what an upload sent since the last answer is lost; half-close answers
                    // so.
    kSessionGone,   // The upload id is unknown from now on.
    kGarbledUpload,  // A message of an upload arrives with wrong bytes.
    kWrongAnswer,    // The object that is answered has another CRC32C.
    kNoChecksum,     // The object that is answered does not say its CRC32C.
  };

  GcsRpc rpc = GcsRpc::kGetObject;
  Kind kind = Kind::kNone;
  absl::StatusCode code = absl::StatusCode::kUnavailable;
  int after = 0;
  std::string message = "injected";
};

// Hands out faults: those asked for, each once, else random ones. One thread at a time.
class GcsFaultSource {
 public:
  void Add(GcsFault fault) { waiting_.push_back(std::move(fault)); }
  void AtRandom(uint64_t seed, double probability, int most);
  GcsFault Take(GcsRpc rpc);
  int taken() const { return taken_; }
  size_t waiting() const { return waiting_.size(); }

 private:
  GcsFault Draw(GcsRpc rpc);

  std::list<GcsFault> waiting_;
  std::mt19937_64 random_;
  double probability_ = 0;
  int random_left_ = 0;
  int taken_ = 0;
  // As many as an upload has to survive: it begins again twice.
  int sessions_left_ = 2;
  int garbled_left_ = 1;
};

}  // namespace peerchunk::test
