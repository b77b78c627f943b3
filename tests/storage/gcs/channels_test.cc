#include "storage/gcs/channels.h"

#include <map>
#include <string>

#include <gtest/gtest.h>

#include "tests/support/status_asserts.h"

namespace peerchunk::test {
namespace {

using Code = absl::StatusCode;

// A machine without an emulator and without credentials, unless a test adds some.
GcsEnvironment Bare() {
  GcsEnvironment environment;
  environment.variable = [](const char*) { return std::string(); };
  environment.default_credentials = [] { return nullptr; };
  environment.on_compute_engine = [] { return false; };
  return environment;
}

GcsStorageOptions Bucket() {
  GcsStorageOptions options;
  options.bucket = "bucket";
  return options;
}

TEST(GcsTargetTest, WithoutCredentialsSaysWhatToDo) {
  const absl::Status status = ChooseGcsTarget(Bucket(), Bare()).status();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  for (const char* advice :
       {"gs://bucket", "GOOGLE_APPLICATION_CREDENTIALS", "gcloud auth application-default login",
        "STORAGE_EMULATOR_HOST_GRPC"}) {
    EXPECT_NE(status.message().find(advice), std::string::npos) << advice;
  }
}

TEST(GcsTargetTest, DefaultCredentialsGoToThePublicService) {
  GcsEnvironment environment = Bare();
  const auto credentials = grpc::SslCredentials({});
  environment.default_credentials = [&] { return credentials; };
  const absl::StatusOr<GcsTarget> target = ChooseGcsTarget(Bucket(), environment);
  ASSERT_OK(target);
  EXPECT_EQ(target->endpoint, "dns:///storage.googleapis.com");
  EXPECT_EQ(target->credentials, credentials);
}

TEST(GcsTargetTest, MetadataServerIsTheFallbackOnComputeEngine) {
  GcsEnvironment environment = Bare();
  environment.on_compute_engine = [] { return true; };
  const absl::StatusOr<GcsTarget> target = ChooseGcsTarget(Bucket(), environment);
  ASSERT_OK(target);
  EXPECT_NE(target->credentials, nullptr);
}

TEST(GcsTargetTest, EmulatorNeedsNoCredentials) {
  GcsEnvironment environment = Bare();
  environment.variable = [](const char* name) {
    return std::string(std::string(name) == "STORAGE_EMULATOR_HOST_GRPC" ? "emulator:9000" : "");
  };
  const absl::StatusOr<GcsTarget> target = ChooseGcsTarget(Bucket(), environment);
  ASSERT_OK(target);
  EXPECT_EQ(target->endpoint, "emulator:9000");
  EXPECT_NE(target->credentials, nullptr);

  GcsStorageOptions named = Bucket();
  named.endpoint = "storage.example.com";
  EXPECT_EQ(CodeOf(ChooseGcsTarget(named, environment)), Code::kFailedPrecondition)
      << "an endpoint that was asked for is no emulator";
}

TEST(GcsTargetTest, PlaintextIsForLoopbackOnly) {
  GcsStorageOptions options = Bucket();
  options.insecure_plaintext = true;
  for (const char* endpoint : {"127.0.0.1:1", "localhost:1", "[::1]:1"}) {
    options.endpoint = endpoint;
    EXPECT_OK(ChooseGcsTarget(options, Bare())) << endpoint;
  }
  for (const char* endpoint : {"", "10.0.0.1:1", "storage.googleapis.com",
                               "127.0.0.1.example.com:1", "localhost.example.com:1"}) {
    options.endpoint = endpoint;
    EXPECT_EQ(CodeOf(ChooseGcsTarget(options, Bare())), Code::kInvalidArgument) << endpoint;
  }
}

TEST(GcsChannelTest, ArgumentsAreThoseThatWereMeasured) {
  const grpc::ChannelArguments arguments = GcsChannelArguments(3);
  const grpc_channel_args raw = arguments.c_channel_args();
  std::map<std::string, int> numbers;
  for (size_t i = 0; i < raw.num_args; ++i) {
    if (raw.args[i].type == GRPC_ARG_INTEGER) numbers[raw.args[i].key] = raw.args[i].value.integer;
  }
  // Nothing else: BDP probing and lookahead stay at their defaults.
  EXPECT_EQ(numbers, (std::map<std::string, int>{{"grpc.use_local_subchannel_pool", 1},
                                                 {"grpc.channel_id", 3},
                                                 {"grpc.dns_enable_srv_queries", 0},
                                                 {"grpc.max_reconnect_backoff_ms", 5'000},
                                                 {"grpc.keepalive_time_ms", 86'400'000},
                                                 {"grpc.keepalive_timeout_ms", 20'000},
                                                 {"grpc.max_receive_message_length", 64 << 20}}));
}

}  // namespace
}  // namespace peerchunk::test
