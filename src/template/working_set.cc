#include "template/working_set.h"

#include <absl/container/flat_hash_set.h>
#include <absl/strings/str_cat.h>
#include <nlohmann/json.hpp>

#include "base/parse_json.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

using nlohmann::json;

absl::Status Refuse(std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("prefetch.memory: ", AbslView(why)));
}

// The value that a JSON object has under `name`; null when it is no object or has none.
const json* Member(const json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::string PrefetchMember(const WorkingSet& set) {
  std::string indices;
  std::string types;
  for (const uint64_t block : set.blocks) {
    absl::StrAppend(&indices, indices.empty() ? "" : ",", block);
    absl::StrAppend(&types, types.empty() ? "" : ",", "\"r\"");
  }
  return absl::StrCat("\"prefetch\":{\"memory\":{\"indices\":[", indices, "],\"access_types\":[",
                      types, "],\"block_size\":", set.block_bytes, "}}");
}

}  // namespace

absl::StatusOr<std::optional<WorkingSet>> DecodeWorkingSet(std::string_view text,
                                                           uint64_t device_bytes) {
  const json parsed = ParseJson(text);
  if (!parsed.is_object()) return Refuse("not in a JSON object");
  const json* const prefetch = Member(parsed, "prefetch");
  if (prefetch == nullptr) return std::nullopt;
  if (!prefetch->is_object()) return Refuse("its parent is no object");
  const json* const memory = Member(*prefetch, "memory");
  if (memory == nullptr) return std::nullopt;

  const json* const block_size = Member(*memory, "block_size");
  const json* const indices = Member(*memory, "indices");
  const json* const types = Member(*memory, "access_types");
  if (block_size == nullptr || !block_size->is_number_unsigned()) return Refuse("no block_size");
  if (indices == nullptr || !indices->is_array()) return Refuse("no indices");
  if (types != nullptr && (!types->is_array() || types->size() != indices->size())) {
    return Refuse("access_types do not go with indices");
  }
  WorkingSet set{.block_bytes = block_size->get<uint64_t>(), .blocks = {}};
  if (set.block_bytes == 0 || set.block_bytes % kPageBytes != 0 || set.block_bytes > kGiB) {
    return Refuse(absl::StrCat("a block_size of ", set.block_bytes));
  }
  const uint64_t blocks = CeilDiv(device_bytes, set.block_bytes);
  absl::flat_hash_set<uint64_t> seen;
  for (const json& index : *indices) {
    if (set.blocks.size() == kMaxWorkingSetBlocks) break;
    if (!index.is_number_unsigned() || index.get<uint64_t>() >= blocks) {
      return Refuse(absl::StrCat("index ", index.dump(), " of ", blocks));
    }
    if (seen.insert(index.get<uint64_t>()).second) set.blocks.push_back(index.get<uint64_t>());
  }
  return set;
}

std::string EncodeWorkingSet(const WorkingSet& set) {
  return absl::StrCat("{", PrefetchMember(set), "}");
}

absl::StatusOr<std::string> WithWorkingSet(std::string_view metadata, const WorkingSet& set) {
  const json parsed = ParseJson(metadata);
  if (!parsed.is_object()) return absl::InvalidArgumentError("metadata.json: not a JSON object");
  if (parsed.contains("prefetch")) {
    return absl::FailedPreconditionError("metadata.json has a prefetch already");
  }
  // Of a JSON object, the last brace is its own. What stands before it is not written anew: numbers
  // and the order of members would not survive that.
  const size_t end = metadata.rfind('}');
  return absl::StrCat(AbslView(metadata.substr(0, end)), parsed.empty() ? "" : ",",
                      PrefetchMember(set), AbslView(metadata.substr(end)));
}

}  // namespace peerchunk
