#include <fcntl.h>

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/byte_size.h"
#include "cli/command.h"
#include "cli/control_client.h"
#include "cli/library.h"
#include "cli/output.h"
#include "node/fetch_build.h"
#include "peerchunk/base/crc32c.h"
#include "peerchunk/base/file.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include "peerchunk/header/header.h"

namespace peerchunk::cli {
namespace {

struct VerifyFlags {
  std::string build;
  std::string base;
  std::string folder;
};

// Size and checksum of one file, however they became known.
struct Sum {
  uint64_t size = 0;
  uint32_t crc32c = 0;
  friend bool operator==(const Sum&, const Sum&) = default;
};

struct Row {
  std::string file;
  std::optional<Sum> in_base;
  std::string verdict;  // Empty: good.
};

absl::StatusOr<Sum> ReadWhole(RangeReader& reader) {
  Sum sum;
  while (true) {
    PEERCHUNK_ASSIGN_OR_RETURN(const std::optional<Extent> extent, reader.Next());
    if (!extent) return sum;
    if (extent->zero) {
      sum.crc32c = CombineCrc32c(sum.crc32c, Crc32cOfZeros(extent->length), extent->length);
    }
    for (const std::string_view piece : extent->pieces)
      sum.crc32c = ExtendCrc32c(sum.crc32c, piece);
    sum.size += extent->length;
  }
}

absl::StatusOr<Sum> ReadWhole(const std::string& path) {
  PEERCHUNK_ASSIGN_OR_RETURN(const File file, File::Open(path, O_RDONLY));
  std::vector<char> buffer(kMiB);
  Sum sum;
  while (true) {
    PEERCHUNK_ASSIGN_OR_RETURN(const size_t got, file.ReadAt(sum.size, absl::MakeSpan(buffer)));
    sum.crc32c = ExtendCrc32c(sum.crc32c, std::string_view(buffer.data(), got));
    sum.size += got;
    if (got < buffer.size()) return sum;
  }
}

// Reads every object of a build in the base and compares it with all that is known of it.
class Verification {
 public:
  Verification(const VerifyFlags& flags, const Invocation& invocation,
               std::shared_ptr<StorageProvider> base)
      : flags_(flags), build_(ToBuildId(flags.build)), base_(std::move(base)) {
    options_.cancellation = invocation.interrupted;
  }

  void Expect(FileKind kind, const Sum& sum) { recorded_[kind] = sum; }

  absl::StatusOr<std::vector<Row>> Run() {
    const std::unique_ptr<BuildContent> content = ContentOf(build_, base_);
    for (const FileKind kind : kAllFileKinds) {
      Row row{.file = std::string(FileName(kind))};
      absl::StatusOr<std::optional<Sum>> sum = SumInBase(kind, *content);
      if (absl::IsDataLoss(sum.status())) {
        row.verdict = std::string(sum.status().message());
      } else {
        PEERCHUNK_RETURN_IF_ERROR(sum);
        row.in_base = *sum;
        row.verdict = Compare(kind, *sum);
      }
      rows_.push_back(std::move(row));
    }
    if (rows_.empty() || !found_any_) {
      return absl::NotFoundError(
          absl::StrCat("the base (", base_->Describe(), ") has nothing of build ", flags_.build));
    }
    PEERCHUNK_RETURN_IF_ERROR(CheckLayers());
    return std::move(rows_);
  }

 private:
  absl::StatusOr<std::optional<Sum>> SumInBase(FileKind kind, BuildContent& content) {
    std::optional<Sum> sum;
    if (IsSeekable(kind)) {
      PEERCHUNK_ASSIGN_OR_RETURN(const auto diff, content.StatDiff(kind, options_));
      if (diff) {
        PEERCHUNK_ASSIGN_OR_RETURN(const auto reader, content.ReadDiff(kind, 0, options_));
        PEERCHUNK_ASSIGN_OR_RETURN(sum, ReadWhole(*reader));
        if (diff->crc32c && sum->crc32c != *diff->crc32c) {
          return absl::DataLossError("the bytes do not match the store's own checksum");
        }
      }
    } else {
      PEERCHUNK_ASSIGN_OR_RETURN(const auto bytes, content.Blob(kind, options_));
      if (bytes != nullptr) {
        sum = Sum{bytes->size(), Crc32c(*bytes)};
        if (IsHeader(kind)) {
          absl::StatusOr<Header> header =
              Header::Decode(*bytes, {.expected_build = build_, .from_storage = true});
          if (!header.ok()) return absl::DataLossError(header.status().message());
          headers_.emplace(kind, *std::move(header));
        }
      }
    }
    found_any_ |= sum.has_value();
    return sum;
  }

  std::string Compare(FileKind kind, const std::optional<Sum>& sum) const {
    if (const auto recorded = recorded_.find(kind); recorded != recorded_.end()) {
      if (!sum) return "missing in the base";
      if (!(*sum == recorded->second)) return "differs from what the daemon recorded at the pause";
    }
    if (!flags_.folder.empty()) {
      const absl::StatusOr<Sum> local =
          ReadWhole(flags_.folder + "/" + std::string(FileName(kind)));
      if (absl::IsNotFound(local.status())) {
        return sum ? "missing in " + flags_.folder : "";
      }
      if (!local.ok()) return std::string(local.status().message());
      if (!sum) return "missing in the base";
      if (!(*local == *sum)) return "differs from the file in " + flags_.folder;
    }
    if (!sum && (kind == FileKind::kMetadata || kind == FileKind::kRootfsHeader ||
                 kind == FileKind::kRootfs)) {
      return kind == FileKind::kMetadata ? "missing: the upload was not completed"
                                         : "missing in the base";
    }
    return "";
  }

  // What the headers map to other builds has to be in the base too.
  absl::Status CheckLayers() {
    for (const auto& [kind, header] : headers_) {
      const FileKind diff =
          kind == FileKind::kMemfileHeader ? FileKind::kMemfile : FileKind::kRootfs;
      for (const Layer& layer : header.Layers()) {
        const std::string path = BuildFileId{layer.build_id, diff}.ObjectPath();
        PEERCHUNK_ASSIGN_OR_RETURN(const auto object, base_->OpenSeekable(path));
        const absl::StatusOr<ObjectStat> stat = object->Stat(options_);
        Row row{.file = path};
        if (absl::IsNotFound(stat.status())) {
          row.verdict =
              absl::StrCat("missing in the base, and ", AbslView(FileName(kind)), " needs it");
        } else {
          PEERCHUNK_RETURN_IF_ERROR(stat);
          if (stat->size >= layer.required_size) continue;
          row.verdict = absl::StrCat("has ", stat->size, " bytes, ", AbslView(FileName(kind)),
                                     " needs ", layer.required_size);
        }
        rows_.push_back(std::move(row));
      }
    }
    return absl::OkStatus();
  }

  const VerifyFlags& flags_;
  const BuildId build_;
  const std::shared_ptr<StorageProvider> base_;
  ReadOptions options_;
  std::map<FileKind, Sum> recorded_;
  std::map<FileKind, Header> headers_;
  std::vector<Row> rows_;
  bool found_any_ = false;
};

// What the daemon recorded of the build when it was paused there; nothing when it was not.
absl::Status ExpectRecorded(const Invocation& invocation, const std::string& build,
                            Verification& verification) {
  PEERCHUNK_ASSIGN_OR_RETURN(const auto client,
                             ControlClient::Connect(invocation.control, invocation.interrupted));
  v1::GetBuildRequest request;
  request.set_build_id(build);
  const absl::StatusOr<v1::BuildInfo> info =
      client->Call(&v1::SandboxService::Stub::GetBuild, request);
  if (absl::IsNotFound(info.status())) return absl::OkStatus();
  PEERCHUNK_RETURN_IF_ERROR(info);
  if (!PausedHere(*info)) return absl::OkStatus();
  for (const v1::BuildFileInfo& file : info->files()) {
    const std::optional<FileKind> kind = ParseFileName(file.name());
    if (kind && file.has_crc32c()) verification.Expect(*kind, {file.size(), file.crc32c()});
  }
  return absl::OkStatus();
}

absl::Status Run(const VerifyFlags& flags, const Invocation& invocation) {
  PEERCHUNK_ASSIGN_OR_RETURN(
      auto base, OpenBaseOrDaemons(flags.base, invocation.control, invocation.interrupted));
  Verification verification(flags, invocation, std::move(base));
  if (flags.base.empty()) {
    PEERCHUNK_RETURN_IF_ERROR(ExpectRecorded(invocation, flags.build, verification));
  }
  PEERCHUNK_ASSIGN_OR_RETURN(const std::vector<Row> rows, verification.Run());
  int bad = 0;
  Json files = Json::array();
  Table table({"FILE", "SIZE", "CRC32C", "VERDICT"});
  for (const Row& row : rows) {
    const bool good = row.verdict.empty();
    if (!good) ++bad;
    const std::string absent = good ? "not part of this build" : row.verdict;
    const std::string verdict = good && row.in_base ? "good" : absent;
    table.AddRow({row.file,
                  row.in_base ? HumanByteSize(static_cast<double>(row.in_base->size)) : "-",
                  row.in_base ? HexCrc32c(row.in_base->crc32c) : "-", verdict});
    Json json = {{"name", row.file}, {"good", good}, {"verdict", verdict}};
    if (row.in_base) {
      json["size"] = row.in_base->size;
      json["crc32c"] = HexCrc32c(row.in_base->crc32c);
    }
    files.push_back(std::move(json));
  }
  if (invocation.json) {
    PrintJson(Json{{"build_id", flags.build}, {"good", bad == 0}, {"files", files}});
  } else {
    Print(table.ToString());
  }
  if (bad == 0) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("build ", flags.build, ": ", bad,
                                          bad == 1 ? " finding" : " findings", " in the base"));
}

}  // namespace

void AddVerify(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<VerifyFlags>();
  CLI::App* const command = app.add_subcommand(
      "verify",
      "Read a build's objects in the base and compare them with all that is known of them");
  AddBuildId(*command, flags->build);
  command
      ->add_option("--base", flags->base,
                   "This base; the daemon is not asked. Default: the daemon's, against its records")
      ->type_name("PATH|gs://...");
  command->add_option("--folder", flags->folder, "Compare with the files in this folder too")
      ->type_name("DIR");
  command->callback([flags, &invocation] {
    invocation.run = [flags, &invocation] { return Run(*flags, invocation); };
  });
}

}  // namespace peerchunk::cli
