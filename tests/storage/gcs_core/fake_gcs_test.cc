#include "tests/support/gcs/fake_gcs.h"

#include <string>

#include <gtest/gtest.h>

#include "peerchunk/base/build_id.h"
#include "peerchunk/base/crc32c.h"
#include "tests/support/sample_bytes.h"
#include "tests/support/status_asserts.h"

// The fake is worth what its strictness is worth.

namespace peerchunk::test {
namespace {

using Code = absl::StatusCode;

class FakeGcsTest : public testing::Test {
 protected:
  static FakeCall Call(GcsRpc rpc) {
    FakeCall call;
    call.rpc = rpc;
    call.bucket = "projects/_/buckets/bucket";
    call.routing = "bucket=projects%2F_%2Fbuckets%2Fbucket";
    call.token = BuildId::Random().ToString();
    call.cancelled = [] { return false; };
    return call;
  }
  std::string StartSession() {
    GcsWriteSpec spec;
    spec.object = "object";
    return *fake_.StartResumableWrite(Call(GcsRpc::kStartResumableWrite), spec);
  }
  std::unique_ptr<FakeGcs::Writing> Write() {
    return fake_.WriteObject(Call(GcsRpc::kWriteObject));
  }
  static GcsWriteMessage Message(std::string& content, uint64_t offset) {
    GcsWriteMessage message;
    message.offset = offset;
    message.content = &content;
    message.content_crc32c = Crc32c(content);
    return message;
  }
  GcsWriteMessage First(std::string& content, uint64_t offset) {
    GcsWriteMessage message = Message(content, offset);
    message.upload_id = &session_;
    return message;
  }
  uint64_t Persisted() {
    return fake_.QueryWriteStatus(Call(GcsRpc::kQueryWriteStatus), session_)->persisted_size;
  }

  FakeGcs fake_;
  std::string session_ = StartSession();
  std::string quantum_ = SampleBytes(kGcsQuantumBytes, 1);
};

TEST_F(FakeGcsTest, CallWithoutRoutingOrTokenIsRefused) {
  fake_.Seed("object", "bytes");
  FakeCall call = Call(GcsRpc::kGetObject);
  call.routing = "bucket=bucket";
  EXPECT_EQ(CodeOf(fake_.GetObject(call, "object")), Code::kInvalidArgument);
  call = Call(GcsRpc::kGetObject);
  call.token = "";
  EXPECT_EQ(CodeOf(fake_.GetObject(call, "object")), Code::kInvalidArgument);
  EXPECT_EQ(fake_.violations().size(), 2u);
}

TEST_F(FakeGcsTest, TokenOfAnotherRequestIsRefused) {
  fake_.Seed("object", "bytes");
  FakeCall call = Call(GcsRpc::kGetObject);
  EXPECT_OK(fake_.GetObject(call, "object"));
  EXPECT_OK(fake_.GetObject(call, "object"));
  EXPECT_EQ(CodeOf(fake_.GetObject(call, "other")), Code::kInvalidArgument);
}

TEST_F(FakeGcsTest, AnotherBucketIsNotFound) {
  FakeCall call = Call(GcsRpc::kGetObject);
  call.bucket = "projects/_/buckets/other";
  EXPECT_EQ(CodeOf(fake_.GetObject(call, "object")), Code::kInvalidArgument) << "routed elsewhere";
  call = Call(GcsRpc::kGetObject);
  call.bucket = "projects/_/buckets/other";
  call.routing = "bucket=projects%2F_%2Fbuckets%2Fother";
  EXPECT_EQ(CodeOf(fake_.GetObject(call, "object")), Code::kNotFound);
}

TEST_F(FakeGcsTest, MessagesOffTheQuantumAreRefused) {
  std::string odd = SampleBytes(kGcsQuantumBytes + 1, 1);
  EXPECT_EQ(CodeOf(Write()->Receive(First(odd, 0))), Code::kInvalidArgument);
  std::string large = SampleBytes(kGcsMessageBytes + kGcsQuantumBytes, 1);
  EXPECT_EQ(CodeOf(Write()->Receive(First(large, 0))), Code::kInvalidArgument);
  EXPECT_EQ(Persisted(), 0u);
}

TEST_F(FakeGcsTest, OffsetsMustFollow) {
  EXPECT_EQ(CodeOf(Write()->Receive(First(quantum_, kGcsQuantumBytes))), Code::kOutOfRange);
  const auto writing = Write();
  ASSERT_OK(writing->Receive(First(quantum_, 0)));
  EXPECT_EQ(CodeOf(writing->Receive(Message(quantum_, 3 * kGcsQuantumBytes))),
            Code::kInvalidArgument);
  EXPECT_EQ(Persisted(), kGcsQuantumBytes);
}

TEST_F(FakeGcsTest, WhatIsThereIsSkipped) {
  {
    const auto writing = Write();
    ASSERT_OK(writing->Receive(First(quantum_, 0)));
    ASSERT_OK(writing->HalfClose());
  }
  const auto writing = Write();
  ASSERT_OK(writing->Receive(First(quantum_, 0)));
  ASSERT_OK(writing->Receive(Message(quantum_, kGcsQuantumBytes)));
  const absl::StatusOr<GcsWriteStatus> status = writing->HalfClose();
  ASSERT_OK(status);
  EXPECT_EQ(status->persisted_size, 2 * kGcsQuantumBytes);
  EXPECT_EQ(status->persisted_crc32c, Crc32c(quantum_ + quantum_));
}

TEST_F(FakeGcsTest, WrongChecksumsAreRefused) {
  GcsWriteMessage message = First(quantum_, 0);
  message.content_crc32c ^= 1;
  EXPECT_EQ(CodeOf(Write()->Receive(message)), Code::kInvalidArgument);
  message = First(quantum_, 0);
  message.finish = true;
  message.object_crc32c = Crc32c(quantum_) ^ 1;
  EXPECT_EQ(CodeOf(Write()->Receive(message)), Code::kInvalidArgument);
  EXPECT_TRUE(fake_.Names().empty());
}

TEST_F(FakeGcsTest, ChecksumTwiceOrNeverIsRefused) {
  GcsWriteMessage first = First(quantum_, 0);
  first.object_crc32c = Crc32c(quantum_ + quantum_);
  const auto writing = Write();
  ASSERT_OK(writing->Receive(first));
  GcsWriteMessage last = Message(quantum_, kGcsQuantumBytes);
  last.finish = true;
  last.object_crc32c = first.object_crc32c;
  EXPECT_EQ(CodeOf(writing->Receive(last)), Code::kInvalidArgument);
  session_ = StartSession();
  GcsWriteMessage only = First(quantum_, 0);
  only.finish = true;
  EXPECT_EQ(CodeOf(Write()->Receive(only)), Code::kInvalidArgument);
}

TEST_F(FakeGcsTest, NothingMayFollowTheEnd) {
  const auto writing = Write();
  GcsWriteMessage message = First(quantum_, 0);
  message.finish = true;
  message.object_crc32c = Crc32c(quantum_);
  ASSERT_OK(writing->Receive(message));
  EXPECT_EQ(CodeOf(writing->Receive(Message(quantum_, kGcsQuantumBytes))), Code::kInvalidArgument);
}

TEST_F(FakeGcsTest, NewStreamPutsAnEndToTheOldOne) {
  const auto old = Write();
  ASSERT_OK(old->Receive(First(quantum_, 0)));
  const auto next = Write();
  ASSERT_OK(next->Receive(First(quantum_, kGcsQuantumBytes)));
  EXPECT_EQ(CodeOf(old->Receive(Message(quantum_, kGcsQuantumBytes))), Code::kAborted);
  EXPECT_EQ(CodeOf(old->HalfClose()), Code::kAborted);
  EXPECT_EQ(Persisted(), 2 * kGcsQuantumBytes);
}

TEST_F(FakeGcsTest, OneShotMustFinishAndKeepItsWord) {
  GcsWriteSpec spec;
  spec.object = "object";
  GcsWriteMessage message = Message(quantum_, 0);
  message.spec = &spec;
  {
    const auto writing = Write();
    ASSERT_OK(writing->Receive(message));
    EXPECT_EQ(CodeOf(writing->HalfClose()), Code::kInvalidArgument);
  }
  spec.object_size = 1;
  message.finish = true;
  message.object_crc32c = Crc32c(quantum_);
  EXPECT_EQ(CodeOf(Write()->Receive(message)), Code::kInvalidArgument);
  EXPECT_TRUE(fake_.Names().empty());
}

TEST_F(FakeGcsTest, ComposeTakesAtMostThirtyTwoOfTheRightGeneration) {
  fake_.Seed("part", "x");
  GcsComposeRequest request;
  request.destination.object = "object";
  request.crc32c = Crc32c("x");
  request.sources = {*fake_.Find("part")};
  request.sources[0].generation += 1;
  EXPECT_EQ(CodeOf(fake_.ComposeObject(Call(GcsRpc::kComposeObject), request)), Code::kNotFound);
  request.sources.assign(33, *fake_.Find("part"));
  EXPECT_EQ(CodeOf(fake_.ComposeObject(Call(GcsRpc::kComposeObject), request)),
            Code::kInvalidArgument);
  request.sources.resize(1);
  EXPECT_OK(fake_.ComposeObject(Call(GcsRpc::kComposeObject), request));
}

}  // namespace
}  // namespace peerchunk::test
