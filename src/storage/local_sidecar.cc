#include "storage/local_sidecar.h"

#include <nlohmann/json.hpp>

#include "base/parse_json.h"

namespace peerchunk {
namespace {

using nlohmann::json;

std::optional<uint64_t> UnsignedField(const json& object, const char* name, uint64_t max) {
  const auto field = object.find(name);
  if (field == object.end() || !field->is_number_unsigned()) return std::nullopt;
  const auto value = field->get<uint64_t>();
  return value <= max ? std::optional<uint64_t>(value) : std::nullopt;
}

}  // namespace

absl::StatusOr<std::string> EncodeSidecar(const LocalSidecar& sidecar) {
  const json object{
      {"size", sidecar.size}, {"crc32c", sidecar.crc32c}, {"metadata", sidecar.metadata}};
  try {
    std::string text = object.dump();
    if (text.size() <= kMaxSidecarBytes) return text;
    return absl::InvalidArgumentError("object metadata is too large");
  } catch (const json::type_error&) {
    return absl::InvalidArgumentError("object metadata is not UTF-8");
  }
}

absl::StatusOr<LocalSidecar> DecodeSidecar(std::string_view text) {
  const auto refuse = [] { return absl::DataLossError("the record of its checksum is damaged"); };
  const json object = ParseJson(text);
  if (!object.is_object()) return refuse();
  const std::optional<uint64_t> size = UnsignedField(object, "size", UINT64_MAX);
  const std::optional<uint64_t> crc32c = UnsignedField(object, "crc32c", UINT32_MAX);
  const auto metadata = object.find("metadata");
  if (!size || !crc32c || metadata == object.end() || !metadata->is_object()) return refuse();
  LocalSidecar sidecar{*size, static_cast<uint32_t>(*crc32c), {}};
  for (const auto& [key, value] : metadata->items()) {
    if (!value.is_string()) return refuse();
    sidecar.metadata.emplace(key, value.get<std::string>());
  }
  return sidecar;
}

}  // namespace peerchunk
