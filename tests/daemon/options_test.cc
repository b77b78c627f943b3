#include "daemon/options.h"

#include <filesystem>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/option_table.h"
#include "tests/support/temp_dir.h"

namespace peerchunk {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class OptionsTest : public testing::Test {
 protected:
  absl::StatusOr<DaemonCommand> Parse(const std::vector<std::string>& arguments) {
    return ParseDaemonCommand(arguments,
                              [this](const std::string& name) -> std::optional<std::string> {
                                const auto found = environment_.find(name);
                                if (found == environment_.end()) return std::nullopt;
                                return found->second;
                              });
  }
  DaemonOptions Options(const std::vector<std::string>& arguments) {
    const auto command = Parse(arguments);
    EXPECT_TRUE(command.ok()) << command.status();
    return command.ok() ? command->options : DaemonOptions{};
  }
  std::string ErrorOf(const std::vector<std::string>& arguments) {
    const auto command = Parse(arguments);
    EXPECT_FALSE(command.ok());
    return std::string(command.status().message());
  }

  std::map<std::string, std::string> environment_;
  test::TempDir folder_;
};

TEST_F(OptionsTest, WithoutAnythingEveryDefaultIsUsable) {
  const DaemonOptions options = Options({});
  EXPECT_THAT(options.listen, ElementsAre("127.0.0.1:7070"));
  EXPECT_TRUE(options.data_folder.starts_with("/"));
  EXPECT_EQ(options.base, options.data_folder + "/base");
  EXPECT_EQ(options.control, options.data_folder + "/control.sock");
  EXPECT_EQ(options.chunk_size, 256u * 1024);
}

TEST_F(OptionsTest, AFlagIsStrongerThanAVariableAndAVariableThanTheFile) {
  const std::string config =
      folder_.Write("c.toml", "fetch-threads = 1\nread-threads = 1\nmax-streams = 1\n");
  environment_["PEERCHUNK_FETCH_THREADS"] = "2";
  environment_["PEERCHUNK_READ_THREADS"] = "2";
  const DaemonOptions options = Options({"--config", config, "--fetch-threads", "3"});
  EXPECT_EQ(options.fetch_threads, 3u);
  EXPECT_EQ(options.read_threads, 2u);
  EXPECT_EQ(options.max_streams, 1u);
}

// The same for every option there is, so that none is left out of a layer.
TEST_F(OptionsTest, EveryOptionCanBeGivenInEachOfTheThreeWays) {
  const std::map<std::string, std::vector<std::string>> samples = {
      {"listen", {"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}},
      {"control", {"/a", "/b", "/c"}},
      {"metrics-address", {"127.0.0.1:1", "127.0.0.1:2", "[::1]:3"}},
      {"data-folder", {"/a", "/b", "/c"}},
      {"base", {"/a", "/b", "gs://c"}},
      {"ready-file", {"/a", "/b", "/c"}},
      {"peer-network", {"10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8"}},
      {"tls-cert", {"/a", "/b", "/c"}},
      {"tls-key", {"/a", "/b", "/c"}},
      {"tls-ca", {"/a", "/b", "/c"}},
      {"tls-peer-name", {"a", "b", "c"}},
      {"insecure-plaintext", {"true", "false", "true"}},
      {"read-threads", {"1", "2", "3"}},
      {"max-streams", {"1", "2", "3"}},
      {"max-streams-per-peer", {"1", "2", "3"}},
      {"max-bytes-in-flight", {"2MiB", "3MiB", "4MiB"}},
      {"serve-rate", {"2MiB", "3MiB", "4MiB"}},
      {"cache-capacity", {"1MiB", "2MiB", "3MiB"}},
      {"chunk-size", {"4KiB", "8KiB", "12KiB"}},
      {"fetch-threads", {"1", "2", "3"}},
      {"max-read-ahead", {"1MiB", "2MiB", "3MiB"}},
      {"no-working-sets", {"true", "false", "true"}},
      {"base-read-rate", {"1MiB", "2MiB", "3MiB"}},
      {"pause-sync", {"true", "false", "true"}},
      {"upload-parallelism", {"1", "2", "3"}},
      {"upload-max-attempts", {"1", "2", "3"}},
      {"upload-rate", {"1MiB", "2MiB", "3MiB"}},
      {"drain-timeout", {"1s", "2s", "3s"}},
      {"log-level", {"trace", "debug", "warn"}},
  };
  for (const OptionSpec& spec : DaemonOptionTable()) {
    SCOPED_TRACE(spec.name);
    const auto found = samples.find(spec.name);
    ASSERT_NE(found, samples.end()) << "give this option three samples above";
    const std::vector<std::string>& sample = found->second;
    environment_.clear();
    const bool quoted =
        spec.kind == OptionSpec::Kind::kText || spec.kind == OptionSpec::Kind::kList;
    const std::string value = quoted ? "\"" + sample[0] + "\"" : sample[0];
    const std::string config = folder_.Write("c.toml", spec.name + " = " + value + "\n");
    EXPECT_THAT(spec.get(Options({"--config", config})), ElementsAre(sample[0]));
    environment_[spec.variable()] = sample[1];
    EXPECT_THAT(spec.get(Options({"--config", config})), ElementsAre(sample[1]));
    EXPECT_THAT(spec.get(Options({"--config", config, "--" + spec.name + "=" + sample[2]})),
                ElementsAre(sample[2]));
  }
}

TEST_F(OptionsTest, ListsComeFromRepeatedFlagsCommasAndArrays) {
  EXPECT_THAT(Options({"--listen", "127.0.0.1:1", "--listen", "127.0.0.1:2"}).listen,
              ElementsAre("127.0.0.1:1", "127.0.0.1:2"));
  environment_["PEERCHUNK_LISTEN"] = "127.0.0.1:3, 127.0.0.1:4";
  EXPECT_THAT(Options({}).listen, ElementsAre("127.0.0.1:3", "127.0.0.1:4"));
  environment_.clear();
  environment_["PEERCHUNK_CONFIG"] =
      folder_.Write("c.toml", "listen = [\"127.0.0.1:5\",\n\"127.0.0.1:6\"]");
  EXPECT_THAT(Options({}).listen, ElementsAre("127.0.0.1:5", "127.0.0.1:6"));
}

TEST_F(OptionsTest, TheDumpIsAFileThatGivesTheSameOptions) {
  const std::vector<std::string> arguments = {
      "--listen", "127.0.0.1:1",    "--listen",          "[::1]:2",      "--upload-rate",
      "20MiB",    "--base",         "/srv/\"quoted\" #", "--pause-sync", "--drain-timeout",
      "1m30s",    "--peer-network", "10.1.0.0/16",       "--dump-config"};
  const auto first = Parse(arguments);
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(first->text.has_value());
  EXPECT_THAT(*first->text, HasSubstr("upload-rate = \"20MiB\""));
  EXPECT_THAT(*first->text, HasSubstr("pause-sync = true"));
  EXPECT_THAT(*first->text, HasSubstr("listen = [\"127.0.0.1:1\", \"[::1]:2\"]"));
  const auto second =
      Parse({"--config", folder_.Write("dump.toml", *first->text), "--dump-config"});
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(*second->text, *first->text);
}

TEST_F(OptionsTest, UnknownFlagsAndKeysAreRefusedByName) {
  EXPECT_THAT(ErrorOf({"--frobnicate"}), HasSubstr("--frobnicate"));
  EXPECT_THAT(ErrorOf({"stray"}), HasSubstr("stray"));
  const std::string config = folder_.Write("c.toml", "# x\nfetch_threads = 3\n");
  EXPECT_THAT(ErrorOf({"--config", config}),
              HasSubstr("c.toml line 2: unknown key 'fetch_threads'"));
}

TEST_F(OptionsTest, AWrongValueNamesWhereItCameFrom) {
  EXPECT_THAT(ErrorOf({"--fetch-threads", "many"}), HasSubstr("--fetch-threads: 'many'"));
  environment_["PEERCHUNK_UPLOAD_RATE"] = "20 MB";
  EXPECT_THAT(ErrorOf({}), HasSubstr("PEERCHUNK_UPLOAD_RATE: '20 MB' is not a number of bytes"));
  environment_.clear();
  const std::string config = folder_.Write("c.toml", "\ndrain-timeout = \"soon\"\n");
  EXPECT_THAT(ErrorOf({"--config", config}),
              HasSubstr("c.toml line 2: drain-timeout: 'soon' is not a time span"));
  EXPECT_THAT(ErrorOf({"--chunk-size", "5000"}), HasSubstr("not a multiple of the page size"));
  EXPECT_THAT(ErrorOf({"--chunk-size", "1KiB"}), HasSubstr("less than 4KiB"));
  EXPECT_THAT(ErrorOf({"--chunk-size", "256MiB"}), HasSubstr("256MiB is more than 16MiB"));
  EXPECT_THAT(ErrorOf({"--serve-rate", "1MiB"}), HasSubstr("at least 2MiB"));
  EXPECT_EQ(Options({"--serve-rate", "0"}).serve_rate, 0u);
  EXPECT_THAT(ErrorOf({"--fetch-threads", "0"}), HasSubstr("from 1 to"));
  EXPECT_THAT(ErrorOf({"--log-level", "loud"}), HasSubstr("'loud' is not a level"));
  EXPECT_THAT(ErrorOf({"--pause-sync=maybe"}), HasSubstr("maybe"));
}

TEST_F(OptionsTest, RelativePathsAreTakenFromTheWorkingFolder) {
  const std::string here = std::filesystem::current_path().string();
  const DaemonOptions options =
      Options({"--data-folder", "data", "--base", "../store", "--ready-file", "ready"});
  EXPECT_EQ(options.data_folder, here + "/data");
  EXPECT_EQ(options.control, here + "/data/control.sock");
  EXPECT_EQ(options.base, std::filesystem::path(here).parent_path().string() + "/store");
  EXPECT_EQ(options.ready_file, here + "/ready");
  EXPECT_EQ(Options({"--base", "gs://bucket/prefix"}).base, "gs://bucket/prefix");
  EXPECT_EQ(Options({"--control", "run/c.sock"}).control, here + "/run/c.sock");
  EXPECT_EQ(Options({"--control", "unix:/run/c.sock"}).control, "unix:/run/c.sock");
  EXPECT_EQ(Options({"--control", "127.0.0.1:7"}).control, "127.0.0.1:7");
}

TEST_F(OptionsTest, ASingleValueIsNotTakenTwice) {
  EXPECT_THAT(ErrorOf({"--base", "/a", "--base", "/b"}), HasSubstr("--base"));
  const std::string config = folder_.Write("c.toml", "base = [\"/a\", \"/b\"]\n");
  EXPECT_THAT(ErrorOf({"--config", config}), HasSubstr("takes one value"));
  environment_["PEERCHUNK_LISTEN"] = "";
  EXPECT_THAT(ErrorOf({}), HasSubstr("at least one address"));
}

TEST_F(OptionsTest, AConfigurationFileThatIsNotThereIsAnError) {
  EXPECT_THAT(ErrorOf({"--config", folder_.PathOf("missing.toml")}), HasSubstr("missing.toml"));
}

TEST_F(OptionsTest, HelpNamesEveryOptionTheOrderAndTheExitCodes) {
  const auto command = Parse({"--help"});
  ASSERT_TRUE(command.ok()) << command.status();
  for (const OptionSpec& spec : DaemonOptionTable()) {
    EXPECT_THAT(*command->text, HasSubstr("--" + spec.name));
  }
  EXPECT_THAT(*command->text, HasSubstr("A flag is stronger than a variable"));
  EXPECT_THAT(*command->text, HasSubstr("Exit codes"));
}

TEST_F(OptionsTest, VersionIsThatOfTheProject) {
  const auto command = Parse({"--version"});
  ASSERT_TRUE(command.ok()) << command.status();
  EXPECT_EQ(*command->text, "peerchunkd " PEERCHUNK_VERSION "\n");
}

}  // namespace
}  // namespace peerchunk
