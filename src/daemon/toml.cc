#include "daemon/toml.h"

#include <set>
#include <utility>

#include <absl/strings/ascii.h>

#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  absl::StatusOr<std::vector<TomlEntry>> Run() {
    std::vector<TomlEntry> entries;
    std::set<std::string> seen;
    while (SkipBlankLines()) {
      TomlEntry entry;
      entry.line = line_;
      if (Peek() == '[') return Error("tables are not used here: write plain `key = value` lines");
      while (!AtEnd() && IsKeyChar(Peek())) entry.key += Take();
      if (entry.key.empty()) return Error("expected `key = value`");
      SkipSpaces();
      if (AtEnd() || Peek() != '=') {
        return Error(absl::StrCat("expected '=' after '", entry.key, "'"));
      }
      Take();
      SkipSpaces();
      PEERCHUNK_RETURN_IF_ERROR(ReadValue(entry));
      PEERCHUNK_RETURN_IF_ERROR(EndLine());
      if (!seen.insert(entry.key).second) {
        return Error(absl::StrCat("'", entry.key, "' is given twice"));
      }
      entries.push_back(std::move(entry));
    }
    return entries;
  }

 private:
  static bool IsKeyChar(char c) { return absl::ascii_isalnum(c) || c == '-' || c == '_'; }

  bool AtEnd() const { return at_ == text_.size(); }
  char Peek() const { return text_[at_]; }
  char Take() {
    const char c = text_[at_++];
    if (c == '\n') ++line_;
    return c;
  }
  absl::Status Error(std::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("line ", line_, ": ", AbslView(what)));
  }

  void SkipSpaces() {
    while (!AtEnd() && (Peek() == ' ' || Peek() == '\t')) Take();
  }
  void SkipComment() {
    if (AtEnd() || Peek() != '#') return;
    while (!AtEnd() && Peek() != '\n') Take();
  }
  // False at the end of the text.
  bool SkipBlankLines() {
    while (true) {
      SkipSpaces();
      SkipComment();
      if (AtEnd()) return false;
      if (Peek() != '\n' && Peek() != '\r') return true;
      Take();
    }
  }
  absl::Status EndLine() {
    SkipSpaces();
    SkipComment();
    if (!AtEnd() && Peek() == '\r') Take();
    if (AtEnd() || Peek() == '\n') return absl::OkStatus();
    return Error("one value per line; text follows it (a string needs quotes)");
  }

  absl::Status ReadValue(TomlEntry& entry) {
    if (AtEnd() || Peek() != '[') {
      PEERCHUNK_ASSIGN_OR_RETURN(std::string value, ReadScalar());
      entry.values.push_back(std::move(value));
      return absl::OkStatus();
    }
    Take();
    entry.is_array = true;
    while (true) {
      if (!SkipBlankLines()) return Error("the array is not closed");
      if (Peek() == ']') break;
      PEERCHUNK_ASSIGN_OR_RETURN(std::string value, ReadScalar());
      entry.values.push_back(std::move(value));
      if (!SkipBlankLines()) return Error("the array is not closed");
      if (Peek() == ']') break;
      if (Peek() != ',') return Error("expected ',' or ']' in the array");
      Take();
    }
    Take();
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> ReadScalar() {
    if (AtEnd()) return Error("a value is missing");
    if (Peek() == '"' || Peek() == '\'') return ReadString(Take());
    std::string word;
    while (!AtEnd() && (IsKeyChar(Peek()) || Peek() == '+')) word += Take();
    if (word == "true" || word == "false") return word;
    std::string digits;
    for (const char c : word) {
      if (c != '_') digits += c;
    }
    if (digits.empty() || digits.find_first_not_of("0123456789") != std::string::npos) {
      return Error("expected a string in quotes, a whole number, true or false");
    }
    return digits;
  }

  absl::StatusOr<std::string> ReadString(char quote) {
    std::string value;
    while (true) {
      if (AtEnd() || Peek() == '\n') return Error("the string is not closed");
      const char c = Take();
      if (c == quote) return value;
      if (c != '\\' || quote == '\'') {
        value += c;
        continue;
      }
      if (AtEnd()) return Error("the string is not closed");
      switch (Take()) {
        case '"':
          value += '"';
          break;
        case '\\':
          value += '\\';
          break;
        case 'n':
          value += '\n';
          break;
        case 't':
          value += '\t';
          break;
        default:
          return Error("only \\\\, \\\", \\n and \\t are understood; use '...' for a plain string");
      }
    }
  }

  const std::string_view text_;
  size_t at_ = 0;
  int line_ = 1;
};

}  // namespace

absl::StatusOr<std::vector<TomlEntry>> ParseToml(std::string_view text) {
  return Parser(text).Run();
}

std::string QuoteToml(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    if (c == '\n') {
      quoted += "\\n";
    } else if (c == '\t') {
      quoted += "\\t";
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

}  // namespace peerchunk
