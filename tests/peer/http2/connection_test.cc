// One connection against a server that is played frame by frame.
#include "peer/http2/connection.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <future>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <absl/strings/match.h>
#include <gtest/gtest.h>

#include "tests/peer/http2/scripted_server.h"
#include "tests/support/sample_bytes.h"

namespace peerchunk::http2 {
namespace {

using test::HeaderBlock;
using test::Prefixed;
using test::RecordingSink;
using test::ScriptedServer;

class ConnectionTest : public testing::Test {
 protected:
  // `play` runs on a thread of its own, behind the preface and the server's settings.
  void Start(std::function<void(ScriptedServer&)> play) {
    auto [client, end] = test::MakeSocketPair();
    connection_ =
        std::make_shared<Connection>(std::move(client), "10.0.0.1:1", false, Clock::Real());
    server_ = std::thread([play = std::move(play), end = std::move(end)]() mutable {
      ScriptedServer server(std::move(end));
      EXPECT_EQ(server.ReadPreface(), kPreface);
      EXPECT_TRUE(server.ReadFrame().header.Is(FrameType::kSettings));
      server.SendSettings();
      play(server);
    });
  }
  void TearDown() override {
    connection_ = nullptr;
    if (server_.joinable()) server_.join();
  }

  std::shared_ptr<Connection::Call> Call(const std::shared_ptr<RecordingSink>& sink,
                                         std::string message = "ask") {
    return connection_->Start({.method = "/s/m", .message = std::move(message)}, sink);
  }
  // Drives until the call has ended.
  absl::Status Finish(RecordingSink& sink) {
    while (!sink.end()) {
      if (auto status = connection_->Wait(sink.waiter, absl::InfiniteFuture()); !status.ok()) {
        return status;
      }
    }
    return *sink.end();
  }

  std::shared_ptr<Connection> connection_;
  std::thread server_;
};

TEST_F(ConnectionTest, OneCallIsAskedAndAnswered) {
  Start([](ScriptedServer& server) {
    const auto head = server.ReadFrame(FrameType::kHeaders);
    EXPECT_EQ(head.header.stream, 1u);
    EXPECT_TRUE(head.header.Has(kEndHeaders));
    HeaderDecoder decoder;
    EXPECT_EQ(*FindField(*decoder.Decode(head.payload), ":path"), "/s/m");
    const auto data = server.ReadFrame(FrameType::kData);
    EXPECT_TRUE(data.header.Has(kEndStream));
    EXPECT_EQ(data.payload, Prefixed("ask"));
    server.Answer(1, "answer");
  });
  const auto sink = std::make_shared<RecordingSink>();
  EXPECT_FALSE(connection_->IsOpen());
  const auto call = Call(sink);
  EXPECT_EQ(Finish(*sink), absl::OkStatus());
  EXPECT_EQ(sink->messages(), std::vector<std::string>{"answer"});
  EXPECT_TRUE(connection_->IsOpen());
  EXPECT_TRUE(connection_->HasNoCallsBut(0));
}

TEST_F(ConnectionTest, SettingsAndPingsAreConfirmed) {
  Start([](ScriptedServer& server) {
    server.SendFrame(FrameType::kPing, 0, 0, "12345678");
    EXPECT_TRUE(server.ReadFrame(FrameType::kSettings).header.Has(kAck));
    const auto ping = server.ReadFrame(FrameType::kPing);
    EXPECT_TRUE(ping.header.Has(kAck));
    EXPECT_EQ(ping.payload, "12345678");
    server.Answer(1, "");
  });
  const auto sink = std::make_shared<RecordingSink>();
  const auto call = Call(sink);
  EXPECT_EQ(Finish(*sink), absl::OkStatus());
  EXPECT_EQ(sink->messages(), std::vector<std::string>{""});
}

TEST_F(ConnectionTest, WhoeverTendsItAnswersWhileNobodyWaits) {
  std::atomic<int> pongs = 0;
  Start([&](ScriptedServer& server) {
    server.ReadFrame(FrameType::kData);
    server.Answer(1, "");
    for (int i = 0; i < 2; ++i) {
      server.SendFrame(FrameType::kPing, 0, 0, "12345678");
      if (server.ReadFrame(FrameType::kPing).header.Has(kAck)) ++pongs;
    }
    server.Close();
  });
  const auto sink = std::make_shared<RecordingSink>();
  const auto call = Call(sink);
  EXPECT_EQ(Finish(*sink), absl::OkStatus());
  while (connection_->IsUsable()) connection_->Tend();
  EXPECT_EQ(pongs, 2);
}

// Several calls at once, their messages cut into frames and those into pieces at random.
TEST_F(ConnectionTest, MessagesArriveWholeHoweverTheyAreCut) {
  constexpr uint32_t kCalls = 3;
  for (int seed = 0; seed < 30; ++seed) {
    std::mt19937 random(seed);
    std::vector<std::vector<std::string>> sent(kCalls);
    std::vector<std::string> left(kCalls);  // Of each call, with the prefixes.
    for (uint32_t i = 0; i < kCalls; ++i) {
      for (uint32_t m = 0; m < 1 + random() % 4; ++m) {
        const size_t size = random() % 3 == 0 ? random() % 700'000 : random() % 100;
        sent[i].push_back(test::SampleBytes(size, random()));
        left[i] += Prefixed(sent[i].back());
      }
    }
    std::string script;
    for (uint32_t i = 0; i < kCalls; ++i) {
      const std::string block = HeaderBlock({{":status", "200"}});
      AppendFrameHeader(script, FrameType::kHeaders, 0, 2 * i + 1, 2);
      script += block.substr(0, 2);
      AppendFrameHeader(script, FrameType::kContinuation, kEndHeaders, 2 * i + 1, block.size() - 2);
      script += block.substr(2);
    }
    while (std::any_of(left.begin(), left.end(), [](const auto& rest) { return !rest.empty(); })) {
      const uint32_t i = random() % kCalls;
      const size_t size = std::min<size_t>(left[i].size(), random() % 200'000);
      const bool padded = random() % 3 == 0;
      const std::string padding(padded ? random() % 256 : 0, '\0');
      AppendFrameHeader(script, FrameType::kData, padded ? kPadded : 0, 2 * i + 1,
                        size + padding.size() + (padded ? 1 : 0));
      if (padded) script.push_back(static_cast<char>(padding.size()));
      script += left[i].substr(0, size) + padding;
      left[i].erase(0, size);
    }
    const std::string trailers = HeaderBlock({{"grpc-status", "0"}});
    for (uint32_t i = 0; i < kCalls; ++i) {
      AppendFrameHeader(script, FrameType::kHeaders, kEndHeaders | kEndStream, 2 * i + 1,
                        trailers.size());
      script += trailers;
    }
    Start([&](ScriptedServer& server) {
      for (uint32_t i = 0; i < kCalls; ++i) server.ReadFrame(FrameType::kData);
      for (size_t at = 0; at < script.size();) {
        const size_t size = std::min<size_t>(script.size() - at, 1 + random() % 300'000);
        server.Send(std::string_view(script).substr(at, size));
        at += size;
      }
    });
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    std::vector<std::shared_ptr<Connection::Call>> calls;
    for (uint32_t i = 0; i < kCalls; ++i) {
      sinks.push_back(std::make_shared<RecordingSink>());
      calls.push_back(Call(sinks.back()));
    }
    for (uint32_t i = 0; i < kCalls; ++i) {
      EXPECT_EQ(Finish(*sinks[i]), absl::OkStatus()) << seed;
      EXPECT_EQ(sinks[i]->messages(), sent[i]) << seed;
    }
    TearDown();
  }
}

TEST_F(ConnectionTest, AnErrorEndsItsCallAlone) {
  Start([](ScriptedServer& server) {
    for (int i = 0; i < 3; ++i) server.ReadFrame(FrameType::kData);
    server.SendFrame(FrameType::kHeaders, kEndHeaders | kEndStream, 1,
                     HeaderBlock({{":status", "200"}, {"grpc-status", "5"}}));
    server.SendHeaders(3);
    server.SendFrame(FrameType::kData, 0, 3, std::string("\1\0\0\0\0", 5));  // Compressed.
    EXPECT_TRUE(server.ReadFrame(FrameType::kRstStream).header.stream == 3);
    server.SendFrame(FrameType::kData, 0, 3, "more of it");
    server.Answer(5, "good");
  });
  const std::shared_ptr<RecordingSink> sinks[] = {std::make_shared<RecordingSink>(),
                                                  std::make_shared<RecordingSink>(),
                                                  std::make_shared<RecordingSink>()};
  const auto a = Call(sinks[0]);
  const auto b = Call(sinks[1]);
  const auto c = Call(sinks[2]);
  EXPECT_TRUE(absl::IsNotFound(Finish(*sinks[0])));
  EXPECT_TRUE(absl::IsDataLoss(Finish(*sinks[1])));
  EXPECT_EQ(Finish(*sinks[2]), absl::OkStatus());
  EXPECT_EQ(sinks[2]->messages(), std::vector<std::string>{"good"});
}

TEST_F(ConnectionTest, AMessageOverTheLimitIsDataLossBeforeItComes) {
  Start([](ScriptedServer& server) {
    server.ReadFrame(FrameType::kData);
    server.SendHeaders(1);
    std::string prefix(1, '\0');
    AppendU32(prefix, 2 * 1024 * 1024 + 1);
    server.SendFrame(FrameType::kData, 0, 1, prefix);
    server.ReadFrame(FrameType::kRstStream);
  });
  const auto sink = std::make_shared<RecordingSink>();
  const auto call = Call(sink);
  EXPECT_TRUE(absl::IsDataLoss(Finish(*sink)));
}

TEST_F(ConnectionTest, ACallThatEndsInsideAMessageIsCutShort) {
  Start([](ScriptedServer& server) {
    server.ReadFrame(FrameType::kData);
    server.SendHeaders(1);
    server.SendFrame(FrameType::kData, 0, 1, Prefixed("0123456789").substr(0, 9));
    server.SendTrailers(1);
  });
  const auto sink = std::make_shared<RecordingSink>();
  const auto call = Call(sink);
  EXPECT_TRUE(absl::IsDataLoss(Finish(*sink)));
  EXPECT_TRUE(sink->messages().empty());
}

// As gRPC's server does when it cancels a call.
TEST_F(ConnectionTest, AnErrorInsideAMessageIsTheCallsEnd) {
  Start([](ScriptedServer& server) {
    for (const auto& [stream, code] : {std::pair(1, "1"), std::pair(3, "14")}) {
      server.ReadFrame(FrameType::kData);
      server.SendHeaders(stream);
      server.SendFrame(FrameType::kData, 0, stream, Prefixed("0123456789").substr(0, 9));
      server.SendTrailers(stream, code);
    }
  });
  for (const auto code : {absl::StatusCode::kCancelled, absl::StatusCode::kUnavailable}) {
    const auto sink = std::make_shared<RecordingSink>();
    const auto call = Call(sink);
    EXPECT_EQ(Finish(*sink).code(), code);
    EXPECT_FALSE(sink->unanswered());
  }
}

// Somebody between here and the peer has a text for people.
TEST_F(ConnectionTest, AnAnswerOfHttpIsWhatItsStatusMeansWhateverFollows) {
  Start([](ScriptedServer& server) {
    server.ReadFrame(FrameType::kData);
    server.SendFrame(FrameType::kHeaders, kEndHeaders, 1,
                     HeaderBlock({{":status", "503"}, {"content-type", "text/html"}}));
    server.SendFrame(FrameType::kData, 0, 1, "<html>come back later</html>");
    server.SendFrame(FrameType::kData, kEndStream, 1, "");
    server.ReadFrame(FrameType::kData);
    server.SendFrame(FrameType::kHeaders, kEndHeaders, 3, HeaderBlock({{"server", "none"}}));
    server.ReadFrame(FrameType::kData);
    server.Answer(5, "answer");
  });
  const absl::StatusCode ends[] = {absl::StatusCode::kUnavailable, absl::StatusCode::kInternal,
                                   absl::StatusCode::kOk};
  for (const absl::StatusCode end : ends) {
    const auto sink = std::make_shared<RecordingSink>();
    const auto call = Call(sink);
    EXPECT_EQ(Finish(*sink).code(), end) << *sink->end();
  }
  EXPECT_TRUE(connection_->IsUsable());
}

TEST_F(ConnectionTest, WhatIsSentKeepsToThePeersWindows) {
  const std::string message = test::SampleBytes(100'000, 1);
  Start([&](ScriptedServer& server) {
    server.SendSettings({{Setting::kInitialWindowSize, 10}});
    // The first window was the default one; what it let out is all that may come.
    std::string got;
    uint32_t first_bytes = 0;
    while (got.size() < kDefaultWindow) {
      const auto frame = server.ReadFrame(FrameType::kData);
      got += frame.payload;
      first_bytes += frame.header.length;
      EXPECT_LE(frame.header.length, kDefaultFrameBytes);
    }
    EXPECT_EQ(first_bytes, kDefaultWindow);
    std::string update;
    AppendWindowUpdate(update, 0, 1'000'000);
    // The settings took the call's window below zero; this brings it to 5.
    AppendWindowUpdate(update, 1, kDefaultWindow - 10 + 5);
    server.Send(update);
    got += server.ReadFrame(FrameType::kData).payload;
    EXPECT_EQ(got.size(), kDefaultWindow + 5);
    update.clear();
    AppendWindowUpdate(update, 1, 1'000'000);
    server.Send(update);
    while (true) {
      const auto frame = server.ReadFrame(FrameType::kData);
      got += frame.payload;
      if (frame.header.Has(kEndStream) || frame.header.type == 255) break;
    }
    EXPECT_EQ(got, Prefixed(message));
    server.Answer(1, "thanks");
  });
  const auto sink = std::make_shared<RecordingSink>();
  const auto call = Call(sink, message);
  EXPECT_EQ(Finish(*sink), absl::OkStatus());
}

TEST_F(ConnectionTest, WhatWasTakenMayBeSentAgain) {
  const std::string message = test::SampleBytes(1024 * 1024, 1);
  constexpr int kMessages = 20;  // More than one window of them.
  Start([&](ScriptedServer& server) {
    server.ReadFrame(FrameType::kData);
    server.SendHeaders(1);
    int64_t window = Connection::kCallWindow;
    for (int i = 0; i < kMessages; ++i) {
      while (window < static_cast<int64_t>(message.size()) + 5) {
        const auto update = server.ReadFrame(FrameType::kWindowUpdate);
        if (update.header.type == 255) return;
        if (update.header.stream == 1) window += ReadU32(update.payload.data());
      }
      server.SendMessage(1, message);
      window -= static_cast<int64_t>(message.size()) + 5;
    }
    server.SendTrailers(1);
  });
  const auto sink = std::make_shared<RecordingSink>();
  const auto call = Call(sink);
  size_t taken = 0;
  while (!sink->end()) {
    ASSERT_TRUE(connection_->Wait(sink->waiter, absl::InfiniteFuture()).ok());
    for (const size_t there = sink->messages().size(); taken < there; ++taken) {
      connection_->Taken(*call, message.size());
    }
  }
  EXPECT_EQ(*sink->end(), absl::OkStatus());
  EXPECT_EQ(taken, kMessages);
}

TEST_F(ConnectionTest, APeerThatSendsMoreThanItMayIsLeft) {
  Start([](ScriptedServer& server) {
    server.ReadFrame(FrameType::kData);
    server.SendHeaders(1);
    const std::string message(1024 * 1024, 'x');
    for (uint32_t sent = 0; sent <= Connection::kCallWindow; sent += message.size()) {
      server.SendMessage(1, message);
    }
    EXPECT_TRUE(server.ReadFrame(FrameType::kGoAway).header.Is(FrameType::kGoAway));
  });
  const auto sink = std::make_shared<RecordingSink>();
  const auto call = Call(sink);
  EXPECT_TRUE(absl::IsInternal(Finish(*sink)));
  EXPECT_FALSE(connection_->IsUsable());
}

TEST_F(ConnectionTest, MoreCallsThanThePeerTakesWaitTheirTurn) {
  Start([](ScriptedServer& server) {
    server.SendSettings({{Setting::kMaxConcurrentStreams, 1}});
    EXPECT_EQ(server.ReadFrame(FrameType::kHeaders).header.stream, 1u);
    server.Answer(1, "one");
    EXPECT_EQ(server.ReadFrame(FrameType::kHeaders).header.stream, 3u);
    server.Answer(3, "two");
    EXPECT_EQ(server.ReadFrame(FrameType::kHeaders).header.stream, 5u);
    server.Answer(5, "three");
  });
  const auto first = std::make_shared<RecordingSink>();
  const auto a = Call(first);
  EXPECT_EQ(Finish(*first), absl::OkStatus());  // Its settings have come by now.
  const auto second = std::make_shared<RecordingSink>();
  const auto third = std::make_shared<RecordingSink>();
  const auto b = Call(second);
  const auto c = Call(third);
  EXPECT_EQ(Finish(*third), absl::OkStatus());
  EXPECT_EQ(third->messages(), std::vector<std::string>{"three"});
  EXPECT_EQ(Finish(*second), absl::OkStatus());
}

TEST_F(ConnectionTest, CallsThatWaitAreBegunWhenThePeerTakesMore) {
  Start([](ScriptedServer& server) {
    server.SendSettings({{Setting::kMaxConcurrentStreams, 1}});
    server.ReadFrame(FrameType::kHeaders);
    server.Answer(1, "");
    EXPECT_EQ(server.ReadFrame(FrameType::kHeaders).header.stream, 3u);
    server.SendSettings({{Setting::kMaxConcurrentStreams, 3}});
    EXPECT_EQ(server.ReadFrame(FrameType::kHeaders).header.stream, 5u);
    EXPECT_EQ(server.ReadFrame(FrameType::kHeaders).header.stream, 7u);
    for (const uint32_t stream : {7, 5, 3}) server.Answer(stream, "");
  });
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  std::vector<std::shared_ptr<Connection::Call>> calls;
  for (int i = 0; i < 4; ++i) {
    sinks.push_back(std::make_shared<RecordingSink>());
    calls.push_back(Call(sinks.back()));
    if (i > 0) continue;
    EXPECT_EQ(Finish(*sinks[0]), absl::OkStatus());  // The settings have come by now.
  }
  for (const auto& sink : sinks) EXPECT_EQ(Finish(*sink), absl::OkStatus());
}

TEST_F(ConnectionTest, AFarewellSaysWhyAsFarAsItMayBeLogged) {
  Start([](ScriptedServer& server) {
    server.ReadFrame(FrameType::kData);
    std::string farewell;
    AppendU32(farewell, 0);
    AppendU32(farewell, static_cast<uint32_t>(ErrorCode::kEnhanceYourCalm));
    server.SendFrame(FrameType::kGoAway, 0, 0,
                     farewell + "too_many_pings\"\nevent=" + std::string(5000, 'x'));
    server.ReadFrame(FrameType::kGoAway);
  });
  const auto dropped = std::make_shared<RecordingSink>();
  const auto call = Call(dropped);
  const std::string why = "the peer is closing the connection, HTTP/2 error 11: too_many_pings??";
  const absl::Status end = Finish(*dropped);
  EXPECT_TRUE(absl::IsUnavailable(end));
  EXPECT_TRUE(absl::StartsWith(end.message(), why)) << end;
  EXPECT_LT(end.message().size(), 1200u);
  const auto late = std::make_shared<RecordingSink>();
  const auto refused = Call(late);
  EXPECT_EQ(*late->end(), end);
}

TEST_F(ConnectionTest, AFarewellEndsWhatThePeerWillNotAnswerAndNothingElse) {
  Start([](ScriptedServer& server) {
    server.ReadFrame(FrameType::kData);
    server.ReadFrame(FrameType::kData);
    std::string farewell;
    AppendU32(farewell, 1);
    AppendU32(farewell, 0);
    server.SendFrame(FrameType::kGoAway, 0, 0, farewell);
    server.Answer(1, "still");
  });
  const auto answered = std::make_shared<RecordingSink>();
  const auto dropped = std::make_shared<RecordingSink>();
  const auto a = Call(answered);
  const auto b = Call(dropped);
  EXPECT_TRUE(absl::IsUnavailable(Finish(*dropped)));
  EXPECT_TRUE(dropped->unanswered());
  EXPECT_EQ(Finish(*answered), absl::OkStatus());
  EXPECT_FALSE(connection_->IsUsable());
  const auto late = std::make_shared<RecordingSink>();
  const auto c = Call(late);
  EXPECT_TRUE(absl::IsUnavailable(*late->end()));
  EXPECT_TRUE(late->unanswered());
}

TEST_F(ConnectionTest, ResetsSayWhatBecameOfTheCall) {
  const std::pair<ErrorCode, absl::StatusCode> cases[] = {
      {ErrorCode::kRefusedStream, absl::StatusCode::kUnavailable},
      {ErrorCode::kCancel, absl::StatusCode::kUnavailable},
      {ErrorCode::kEnhanceYourCalm, absl::StatusCode::kResourceExhausted},
      {ErrorCode::kNoError, absl::StatusCode::kInternal},
      {ErrorCode::kProtocolError, absl::StatusCode::kInternal}};
  Start([&](ScriptedServer& server) {
    uint32_t stream = 1;
    for (const auto& [code, status] : cases) {
      server.ReadFrame(FrameType::kData);
      std::string reset;
      AppendRstStream(reset, stream, code);
      server.Send(reset);
      stream += 2;
    }
  });
  for (const auto& [code, status] : cases) {
    const auto sink = std::make_shared<RecordingSink>();
    const auto call = Call(sink);
    EXPECT_EQ(Finish(*sink).code(), status);
    EXPECT_EQ(sink->unanswered(), code == ErrorCode::kRefusedStream);
  }
}

TEST_F(ConnectionTest, AConnectionThatGoesEndsItsCallsAndTellsWhichHadNoAnswer) {
  Start([](ScriptedServer& server) {
    server.ReadFrame(FrameType::kData);
    server.ReadFrame(FrameType::kData);
    server.SendHeaders(1);
    server.SendMessage(1, "half");
    server.Close();
  });
  const auto begun = std::make_shared<RecordingSink>();
  const auto silent = std::make_shared<RecordingSink>();
  const auto a = Call(begun);
  const auto b = Call(silent);
  EXPECT_TRUE(absl::IsUnavailable(Finish(*begun)));
  EXPECT_TRUE(absl::IsUnavailable(Finish(*silent)));
  EXPECT_EQ(begun->messages(), std::vector<std::string>{"half"});
  EXPECT_FALSE(begun->unanswered());
  EXPECT_TRUE(silent->unanswered());
  EXPECT_FALSE(connection_->IsOpen());
}

TEST_F(ConnectionTest, WhatBreaksTheProtocolEndsTheConnection) {
  const auto frame = [](FrameType type, uint8_t flags, uint32_t stream, std::string payload) {
    std::string bytes;
    AppendFrameHeader(bytes, type, flags, stream, payload.size());
    return bytes + payload;
  };
  std::string too_long;
  AppendFrameHeader(too_long, FrameType::kData, 0, 1, Connection::kFrameBytes + 1);
  std::string long_ping;
  AppendFrameHeader(long_ping, FrameType::kPing, 0, 0, 100'000);
  const std::string settings_window =
      frame(FrameType::kSettings, 0, 0, {"\0\4\xff\xff\xff\xff", 6});
  const std::string block = HeaderBlock({{":status", "200"}});
  const std::vector<std::pair<const char*, std::string>> cases = {
      {"data before headers", frame(FrameType::kData, 0, 1, "x")},
      {"data of no call", frame(FrameType::kData, 0, 7, "x")},
      {"data of the connection", frame(FrameType::kData, 0, 0, "x")},
      {"data of a pushed call", frame(FrameType::kData, 0, 2, "x")},
      {"a frame over the limit", too_long},
      {"a control frame over the limit", long_ping},
      {"too much padding", frame(FrameType::kData, kPadded, 1, "\5x")},
      {"padding that is not there", frame(FrameType::kHeaders, kPadded | kEndHeaders, 1, "")},
      {"a push", frame(FrameType::kPushPromise, kEndHeaders, 1, std::string(4, '\0'))},
      {"a short ping", frame(FrameType::kPing, 0, 0, "1234567")},
      {"a ping of a call", frame(FrameType::kPing, 0, 1, "12345678")},
      {"settings of a call", frame(FrameType::kSettings, 0, 1, "")},
      {"short settings", frame(FrameType::kSettings, 0, 0, "12345")},
      {"a window over the limit", settings_window},
      {"tiny frames", frame(FrameType::kSettings, 0, 0, {"\0\5\0\0\0\1", 6})},
      {"a window update of nothing", frame(FrameType::kWindowUpdate, 0, 0, std::string(4, '\0'))},
      {"a short window update", frame(FrameType::kWindowUpdate, 0, 0, "123")},
      {"too large a window", frame(FrameType::kWindowUpdate, 0, 1, "\x7f\xff\xff\xff")},
      {"a short reset", frame(FrameType::kRstStream, 0, 1, "123")},
      {"a short farewell", frame(FrameType::kGoAway, 0, 0, "1234567")},
      {"a continuation of nothing", frame(FrameType::kContinuation, kEndHeaders, 1, block)},
      {"something inside a header block",
       frame(FrameType::kHeaders, 0, 1, block) + frame(FrameType::kPing, 0, 0, "12345678")},
      {"malformed headers", frame(FrameType::kHeaders, kEndHeaders, 1, "\x80")},
      {"headers twice", frame(FrameType::kHeaders, kEndHeaders, 1, block) +
                            frame(FrameType::kHeaders, kEndHeaders, 1, block)},
  };
  for (const auto& [name, bytes] : cases) {
    Start([&, bytes = bytes, name = name](ScriptedServer& server) {
      server.ReadFrame(FrameType::kData);
      server.Send(bytes);
      EXPECT_TRUE(server.ReadFrame(FrameType::kGoAway).header.Is(FrameType::kGoAway)) << name;
    });
    const auto sink = std::make_shared<RecordingSink>();
    const auto call = Call(sink);
    EXPECT_TRUE(absl::IsInternal(Finish(*sink))) << name << ": " << *sink->end();
    TearDown();
  }
}

TEST_F(ConnectionTest, APeerThatAsksAndNeverListensIsLeft) {
  Start([](ScriptedServer& server) {
    server.ReadFrame(FrameType::kData);
    std::string pings;
    for (int i = 0; i < 10'000; ++i) {
      AppendFrameHeader(pings, FrameType::kPing, 0, 0, 8);
      pings += "12345678";
    }
    for (int i = 0; i < 100; ++i) server.Send(pings);
  });
  const auto sink = std::make_shared<RecordingSink>();
  const auto call = Call(sink);
  EXPECT_FALSE(Finish(*sink).ok());
}

TEST_F(ConnectionTest, AWaitEndsAtItsDeadlineAndTheCallGoesOn) {
  std::atomic<bool> go = false;
  Start([&](ScriptedServer& server) {
    server.ReadFrame(FrameType::kData);
    go.wait(false);
    server.Answer(1, "late");
  });
  const auto sink = std::make_shared<RecordingSink>();
  const auto call = Call(sink);
  EXPECT_TRUE(absl::IsDeadlineExceeded(connection_->Wait(sink->waiter, absl::InfinitePast())));
  go = true;
  go.notify_all();
  EXPECT_EQ(Finish(*sink), absl::OkStatus());
}

TEST_F(ConnectionTest, CancelEndsAWaitWhetherItDrivesOrNot) {
  Start([](ScriptedServer& server) {
    server.ReadFrame(FrameType::kData);
    server.Answer(1, "");
    while (server.ReadFrame().header.type != 255) {
    }
  });
  const auto first = std::make_shared<RecordingSink>();
  const auto answered = Call(first);
  EXPECT_EQ(Finish(*first), absl::OkStatus());
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  std::vector<std::shared_ptr<Connection::Call>> calls;
  std::vector<std::thread> waiters;
  std::atomic<int> cancelled = 0;
  for (int i = 0; i < 4; ++i) {
    sinks.push_back(std::make_shared<RecordingSink>());
    calls.push_back(Call(sinks.back()));
  }
  for (const auto& sink : sinks) {
    waiters.emplace_back([&] {
      const absl::Status end = connection_->Wait(sink->waiter, absl::InfiniteFuture());
      if (absl::IsCancelled(end)) ++cancelled;
    });
  }
  for (const auto& sink : sinks) connection_->Cancel(*sink->waiter);
  for (std::thread& waiter : waiters) waiter.join();
  EXPECT_EQ(cancelled, 4);
  for (const auto& call : calls) connection_->Leave(*call);
  EXPECT_TRUE(connection_->HasNoCallsBut(0));
}

// A call whose messages go to memory that is not the connection's.
class PlacedCallTest : public ConnectionTest {
 protected:
  static constexpr size_t kHeadBytes = 16;
  static constexpr size_t kBytes = 700'000;

  std::shared_ptr<Connection::Call> PlacedCall() {
    return connection_->Start({.method = "/s/m", .message = "ask", .head_bytes = kHeadBytes},
                              sink_);
  }

  std::string memory_ = std::string(kBytes, '\0');
  const std::shared_ptr<RecordingSink> sink_ =
      std::make_shared<RecordingSink>(absl::MakeSpan(memory_));
};

TEST_F(PlacedCallTest, MessagesAreReadToWhereTheSinkWantsThemHoweverTheyAreCut) {
  const std::string sent = test::SampleBytes(kBytes, 1);
  const std::vector<size_t> sizes = {0,     1,      kHeadBytes - 1, kHeadBytes, kHeadBytes + 1,
                                     5'000, 400'000};
  for (int seed = 0; seed < 20; ++seed) {
    std::fill(memory_.begin(), memory_.end(), '\0');
    const auto sink = std::make_shared<RecordingSink>(absl::MakeSpan(memory_));
    std::vector<std::string> messages;
    size_t at = 0;
    for (const size_t size : sizes) {
      messages.push_back(sent.substr(at, size));
      at += size;
    }
    messages.push_back(test::SampleBytes(kBytes, 2));  // There is no room left for it there.
    Start([&messages, seed](ScriptedServer& server) {
      server.ReadFrame(FrameType::kData);
      server.SendHeaders(1);
      std::string bytes;
      for (const std::string& message : messages) bytes += Prefixed(message);
      std::mt19937 random(seed);
      for (size_t done = 0; done < bytes.size();) {
        const size_t most = random() % 2 == 0 ? 40 : 300'000;
        const size_t size = std::min(1 + random() % most, bytes.size() - done);
        server.SendFrame(FrameType::kData, 0, 1, bytes.substr(done, size));
        done += size;
      }
      server.SendTrailers(1);
    });
    const auto call =
        connection_->Start({.method = "/s/m", .message = "ask", .head_bytes = kHeadBytes}, sink);
    EXPECT_EQ(Finish(*sink), absl::OkStatus());
    EXPECT_TRUE(sink->messages() == messages) << seed;
    EXPECT_TRUE(memory_.substr(0, at) == sent.substr(0, at)) << seed;
    TearDown();
  }
}

// It leaves in the middle of a frame.
TEST_F(PlacedCallTest, WhatComesAfterItsReaderHasLeftGoesNowhere) {
  const std::string message = test::SampleBytes(kBytes, 1);
  std::promise<void> left;
  Start([&](ScriptedServer& server) {
    server.ReadFrame(FrameType::kData);
    server.ReadFrame(FrameType::kData);
    server.SendHeaders(1);
    server.SendHeaders(3);
    server.SendMessage(3, "now");
    std::string frame;
    AppendFrameHeader(frame, FrameType::kData, 0, 1, 5 + kBytes);
    frame += Prefixed(message);
    server.Send(frame.substr(0, frame.size() / 2));
    left.get_future().wait();
    server.Send(frame.substr(frame.size() / 2));
    server.SendMessage(3, "later");
    server.SendTrailers(3);
  });
  const auto call = PlacedCall();
  const auto other = std::make_shared<RecordingSink>();
  const auto other_call = Call(other);
  const auto came = [&] { return memory_[kBytes / 4] == message[kBytes / 4]; };
  ASSERT_NE(message[kBytes / 4], '\0');
  while (!came()) {
    // Looks, and does not wait for what will not come.
    const absl::Status looked = connection_->Wait(other->waiter, Clock::Real().Now());
    ASSERT_TRUE(looked.ok() || absl::IsDeadlineExceeded(looked)) << looked;
    connection_->Tend();
  }
  connection_->Leave(*call);
  const std::string as_it_was = memory_;
  EXPECT_FALSE(memory_ == message);
  left.set_value();
  EXPECT_EQ(Finish(*other), absl::OkStatus());
  EXPECT_TRUE(memory_ == as_it_was);
  EXPECT_TRUE(sink_->messages().empty());
}

// A socket that lets a test in while bytes are on their way into somebody's memory.
class HeldSocket final : public Socket {
 public:
  HeldSocket(std::unique_ptr<Socket> under, size_t hold_at, std::function<void()> held)
      : under_(std::move(under)), hold_at_(hold_at), held_(std::move(held)) {}

  int fd() const override { return under_->fd(); }
  absl::StatusOr<bool> Open() override { return under_->Open(); }
  short OpenEvents() const override { return under_->OpenEvents(); }
  absl::StatusOr<size_t> Read(absl::Span<char> first, absl::Span<char> second) override {
    if (first.size() >= hold_at_ && held_) std::exchange(held_, nullptr)();
    return under_->Read(first, second);
  }
  absl::StatusOr<size_t> Write(std::string_view bytes) override { return under_->Write(bytes); }
  void Shutdown() override { under_->Shutdown(); }

 private:
  const std::unique_ptr<Socket> under_;
  const size_t hold_at_;
  std::function<void()> held_;
};

TEST_F(PlacedCallTest, ItsReaderLeavesWhenNobodyWritesForItAnyMore) {
  auto [client, end] = test::MakeSocketPair();
  std::shared_ptr<Connection::Call> call;
  std::promise<void> writing;
  std::promise<void> leaves;
  const auto hold = [&] {
    writing.set_value();
    leaves.get_future().wait();
    for (int i = 0; i < 1000; ++i) std::this_thread::yield();
  };
  connection_ = std::make_shared<Connection>(
      std::make_unique<HeldSocket>(std::move(client), kBytes / 2, hold), "10.0.0.1:1", false,
      Clock::Real());
  server_ = std::thread([end = std::move(end)]() mutable {
    ScriptedServer server(std::move(end));
    server.ReadPreface();
    server.SendSettings();
    server.ReadFrame(FrameType::kData);
    server.ReadFrame(FrameType::kData);
    server.SendHeaders(1);
    server.SendMessage(1, std::string(kBytes, 'x'));
    server.Answer(3, "answer");
  });
  call = PlacedCall();
  const auto other = std::make_shared<RecordingSink>();
  const auto other_call = Call(other);
  std::thread drives([&] { EXPECT_EQ(Finish(*other), absl::OkStatus()); });
  writing.get_future().wait();
  leaves.set_value();
  connection_->Leave(*call);
  std::string as_it_was = std::exchange(memory_, {});  // The sanitizers look at this, too.
  const std::string copy = as_it_was;
  drives.join();
  EXPECT_TRUE(as_it_was == copy);
}

TEST_F(ConnectionTest, ManyThreadsShareOneConnection) {
  constexpr int kThreads = 16;
  constexpr int kRounds = 50;
  Start([](ScriptedServer& server) {
    std::map<uint32_t, std::string> requests;
    while (true) {
      const auto frame = server.ReadFrame();
      const uint32_t stream = frame.header.stream;
      if (frame.header.type == 255) return;
      if (!frame.header.Is(FrameType::kData)) continue;
      std::string update;
      AppendWindowUpdate(update, 0, frame.header.length);
      server.Send(update);
      requests[stream] += frame.payload;
      if (!frame.header.Has(kEndStream)) continue;
      server.SendHeaders(stream);
      server.SendFrame(FrameType::kData, 0, stream, requests[stream]);
      server.SendTrailers(stream);
    }
  });
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < kRounds; ++round) {
        const auto sink = std::make_shared<RecordingSink>();
        const std::string message = test::SampleBytes(1 + (i * 977 + round * 131) % 9000, i);
        const auto call = Call(sink, message);
        if (round % 7 == 3) {
          connection_->Leave(*call);
          continue;
        }
        ASSERT_EQ(Finish(*sink), absl::OkStatus());
        ASSERT_EQ(sink->messages(), std::vector<std::string>{message});
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Frames with anything in them: never more than an error, and always an end.
TEST_F(ConnectionTest, RandomBytesNeverDoMoreThanFail) {
  for (int seed = 0; seed < 300; ++seed) {
    Start([seed](ScriptedServer& server) {
      std::mt19937 random(seed);
      server.ReadFrame(FrameType::kData);
      std::string bytes;
      for (int i = 0; i < 20; ++i) {
        std::string payload = test::SampleBytes(random() % 64, random());
        if (random() % 2 == 0) payload = HeaderBlock({{":status", "200"}, {"grpc-status", "0"}});
        if (random() % 4 == 0) payload = Prefixed(payload);
        AppendFrameHeader(bytes, static_cast<FrameType>(random() % 11), random(),
                          random() % 3 == 0 ? random() : 1, payload.size());
        bytes += payload;
      }
      if (random() % 2 == 0) bytes[random() % bytes.size()] = static_cast<char>(random());
      server.Send(bytes);
    });
    const auto sink = std::make_shared<RecordingSink>();
    const auto call = Call(sink);
    (void)Finish(*sink);
    EXPECT_TRUE(sink->end().has_value());
    TearDown();
  }
}

}  // namespace
}  // namespace peerchunk::http2
