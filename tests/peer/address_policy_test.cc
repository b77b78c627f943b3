#include "peerchunk/peer/address_policy.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace peerchunk {
namespace {

constexpr absl::StatusCode kOk = absl::StatusCode::kOk;
constexpr absl::StatusCode kSyntax = absl::StatusCode::kInvalidArgument;
constexpr absl::StatusCode kRefused = absl::StatusCode::kPermissionDenied;

AddressPolicy Policy(std::vector<std::string> networks, std::vector<std::string> own) {
  auto policy =
      AddressPolicy::Create({.networks = std::move(networks), .own_addresses = std::move(own)});
  EXPECT_TRUE(policy.ok()) << policy.status();
  return *std::move(policy);
}

struct Row {
  std::string address;
  absl::StatusCode code;
  std::string rule;  // Part of the message.
};

void CheckRows(const AddressPolicy& policy, const std::vector<Row>& rows) {
  for (const Row& row : rows) {
    const auto checked = policy.Check(row.address);
    EXPECT_EQ(checked.status().code(), row.code) << row.address << ": " << checked.status();
    EXPECT_NE(std::string(checked.status().message()).find(row.rule), std::string::npos)
        << row.address << ": " << checked.status();
  }
}

TEST(AddressPolicyTest, EveryRuleOfTheTableHolds) {
  CheckRows(Policy({}, {"10.0.0.1:7070", "[fd00::1]:7070"}),
            {
                // The private ranges and their edges.
                {"10.0.0.0:1", kOk, ""},
                {"10.255.255.255:65535", kOk, ""},
                {"9.255.255.255:7070", kRefused, "outside the configured"},
                {"11.0.0.0:7070", kRefused, "outside the configured"},
                {"172.16.0.0:7070", kOk, ""},
                {"172.31.255.255:7070", kOk, ""},
                {"172.15.255.255:7070", kRefused, "outside"},
                {"172.32.0.0:7070", kRefused, "outside"},
                {"192.168.0.0:7070", kOk, ""},
                {"192.167.255.255:7070", kRefused, "outside"},
                {"192.169.0.0:7070", kRefused, "outside"},
                {"[fc00::]:7070", kOk, ""},
                {"[fdff:ffff::ffff]:7070", kOk, ""},
                {"[fbff::1]:7070", kRefused, "outside"},
                {"[fe00::1]:7070", kRefused, "outside"},
                {"8.8.8.8:443", kRefused, "outside"},
                {"[2606:4700::1111]:443", kRefused, "outside"},
                // Names and other things that are not numbers.
                {"localhost:7070", kSyntax, "not numeric"},
                {"node-a.internal:7070", kSyntax, "not numeric"},
                {"metadata.google.internal:80", kSyntax, "not numeric"},
                {"dns:///10.0.0.2:7070", kSyntax, ""},
                {"unix:/run/x.sock", kSyntax, ""},
                {"10.0.0.2:http", kSyntax, "port"},
                {"", kSyntax, "port"},
                {":", kSyntax, "port"},
                {"10.0.0.2", kSyntax, "port"},
                {"10.0.0.2:", kSyntax, "port"},
                {":7070", kSyntax, "not numeric"},
                {"10.0.0.2:0", kSyntax, "port 0"},
                {"10.0.0.2:00080", kSyntax, "port"},
                {"10.0.0.2:65536", kSyntax, "port"},
                {"10.0.0.2:99999999999", kSyntax, "port"},
                {"10.0.0.2:-1", kSyntax, "port"},
                {"10.0.0.2:+80", kSyntax, "port"},
                {"10.0.0.2: 80", kSyntax, "port"},
                {" 10.0.0.2:80", kSyntax, "not numeric"},
                {"10.0.0.2:7070\n", kSyntax, "port"},
                {std::string("10.0.0.2\0:7070", 14), kSyntax, "not numeric"},
                {std::string("[fd00::2\0]:7070", 15), kSyntax, "not numeric"},
                {"[fd00::2]", kSyntax, ""},
                {"[fd00::2]7070", kSyntax, ""},
                {"fd00::2:7070", kSyntax, "not numeric"},
                {"[10.0.0.2]:7070", kSyntax, "not numeric"},
                {"[]:7070", kSyntax, "not numeric"},
                {"user@10.0.0.2:7070", kSyntax, "not numeric"},
                // Other spellings of IPv4, which resolvers read in more than one way.
                {"010.0.0.2:7070", kSyntax, "not numeric"},
                {"0xa.0.0.2:7070", kSyntax, "not numeric"},
                {"10.2:7070", kSyntax, "not numeric"},
                {"167772162:7070", kSyntax, "not numeric"},
                {"10.0.0.2.:7070", kSyntax, "not numeric"},
                {"10.0.0.256:7070", kSyntax, "not numeric"},
                {"10.0.0.2.3:7070", kSyntax, "not numeric"},
                // Zone ids.
                {"[fe80::1%eth0]:7070", kSyntax, "not numeric"},
                {"[fd00::2%1]:7070", kSyntax, "not numeric"},
                // Link-local and metadata.
                {"169.254.0.1:7070", kRefused, "link-local"},
                {"169.254.255.255:7070", kRefused, "link-local"},
                {"169.254.169.254:80", kRefused, "metadata"},
                {"[fe80::1]:7070", kRefused, "link-local"},
                {"[febf:ffff::1]:7070", kRefused, "link-local"},
                {"[fd00:ec2::254]:80", kRefused, "metadata"},
                {"[fd20:ce::254]:80", kRefused, "metadata"},
                {"100.100.100.200:80", kRefused, "metadata"},
                {"168.63.129.16:80", kRefused, "metadata"},
                {"192.0.0.192:80", kRefused, "metadata"},
                // Multicast, broadcast, unspecified, reserved.
                {"224.0.0.1:7070", kRefused, "multicast"},
                {"239.255.255.255:7070", kRefused, "multicast"},
                {"[ff02::1]:7070", kRefused, "multicast"},
                {"255.255.255.255:7070", kRefused, "broadcast"},
                {"240.0.0.1:7070", kRefused, "reserved"},
                {"0.0.0.0:7070", kRefused, "unspecified"},
                {"0.1.2.3:7070", kRefused, "unspecified"},
                {"[::]:7070", kRefused, "unspecified"},
                // IPv4 inside IPv6.
                {"[::ffff:10.0.0.2]:7070", kRefused, "IPv4-mapped"},
                {"[::ffff:169.254.169.254]:80", kRefused, "IPv4-mapped"},
                {"[::ffff:7f00:1]:7070", kRefused, "IPv4-mapped"},
                {"[::10.0.0.2]:7070", kRefused, "IPv4-compatible"},
                {"[::ffff:0:10.0.0.2]:7070", kRefused, "IPv4-translated"},
                {"[64:ff9b::a9fe:a9fe]:80", kRefused, "NAT64"},
                {"[64:ff9b:1::10.0.0.2]:80", kRefused, "NAT64"},
                {"[2002:a9fe:a9fe::1]:80", kRefused, "6to4"},
                {"[2001:0:1::1]:80", kRefused, "Teredo"},
                // Oneself.
                {"10.0.0.1:7070", kRefused, "this node itself"},
                {"10.0.0.1:7071", kOk, ""},
                {"10.0.0.2:7070", kOk, ""},
                {"[fd00::1]:7070", kRefused, "this node itself"},
                {"[fd00:0:0:0:0:0:0:1]:7070", kRefused, "this node itself"},
                // Loopback, for a node that does not listen there.
                {"127.0.0.1:7070", kRefused, "loopback"},
                {"127.255.255.255:7070", kRefused, "loopback"},
                {"[::1]:7070", kRefused, "loopback"},
            });
}

TEST(AddressPolicyTest, LoopbackIsForNodesThatListenThere) {
  for (const char* own : {"127.0.0.1:7070", "[::1]:7070"}) {
    const AddressPolicy policy = Policy({}, {own});
    CheckRows(policy, {{own, kRefused, "this node itself"},
                       {"127.0.0.1:7071", kOk, ""},
                       {"127.0.0.2:7070", kOk, ""},
                       {"[::1]:7071", kOk, ""},
                       {"10.0.0.1:7070", kOk, ""},
                       {"[::ffff:127.0.0.1]:7071", kRefused, "IPv4-mapped"}});
  }
}

TEST(AddressPolicyTest, LoopbackInANetworkListIsNotEnough) {
  CheckRows(Policy({"127.0.0.0/8", "::1/128"}, {"10.0.0.1:7070"}),
            {{"127.0.0.1:7071", kRefused, "loopback"}, {"[::1]:7071", kRefused, "loopback"}});
}

TEST(AddressPolicyTest, ConfiguredNetworksReplaceThePrivateRanges) {
  CheckRows(Policy({"203.0.113.64/26", "2001:db8:1::/48"}, {}),
            {{"203.0.113.64:1", kOk, ""},
             {"203.0.113.127:1", kOk, ""},
             {"203.0.113.63:1", kRefused, "outside"},
             {"203.0.113.128:1", kRefused, "outside"},
             {"[2001:db8:1:ffff::1]:1", kOk, ""},
             {"[2001:db8:2::1]:1", kRefused, "outside"},
             {"10.0.0.2:1", kRefused, "outside"}});
  CheckRows(Policy({"198.51.100.7/32"}, {}),
            {{"198.51.100.7:1", kOk, ""}, {"198.51.100.6:1", kRefused, "outside"}});
}

TEST(AddressPolicyTest, WhatIsNeverDialledStaysSoInsideTheWidestNetworks) {
  CheckRows(Policy({"0.0.0.0/0", "::/0"}, {"10.0.0.1:7070"}),
            {{"8.8.8.8:443", kOk, ""},
             {"[2606:4700::1]:443", kOk, ""},
             {"169.254.169.254:80", kRefused, "metadata"},
             {"169.254.1.1:80", kRefused, "link-local"},
             {"[fe80::1]:80", kRefused, "link-local"},
             {"224.0.0.1:80", kRefused, "multicast"},
             {"0.0.0.0:80", kRefused, "unspecified"},
             {"[::ffff:8.8.8.8]:80", kRefused, "IPv4-mapped"},
             {"[64:ff9b::808:808]:80", kRefused, "NAT64"},
             {"127.0.0.1:80", kRefused, "loopback"}});
}

TEST(AddressPolicyTest, UnspecifiedOwnHostMeansEveryAddressOfThisMachine) {
  // Every machine has loopback; it stays refused for both reasons.
  CheckRows(Policy({}, {"0.0.0.0:7070"}), {{"127.0.0.1:7070", kRefused, "this node itself"},
                                           {"127.0.0.1:7071", kRefused, "loopback"},
                                           {"10.0.0.2:7070", kOk, ""}});
}

TEST(AddressPolicyTest, CheckedAddressIsTheOneDialled) {
  const AddressPolicy policy = Policy({}, {"127.0.0.1:1"});
  const auto v4 = policy.Check("10.1.2.3:7070");
  ASSERT_TRUE(v4.ok());
  EXPECT_EQ(v4->ToString(), "10.1.2.3:7070");
  EXPECT_EQ(v4->target(), "ipv4:10.1.2.3:7070");
  EXPECT_FALSE(v4->is_loopback());
  const auto v6 = policy.Check("[FD00:0:0::0001]:7070");
  ASSERT_TRUE(v6.ok());
  EXPECT_EQ(v6->ToString(), "[fd00::1]:7070");
  EXPECT_EQ(v6->target(), "ipv6:[fd00::1]:7070");
  EXPECT_TRUE(*v6 == *policy.Check("[fd00::1]:7070"));
  EXPECT_TRUE(policy.Check("127.0.0.1:2")->is_loopback());
}

TEST(AddressPolicyTest, BadConfigurationIsNamed) {
  for (const char* network : {"10.0.0.0", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "x/8", "/8", "",
                              "10.0.0.0/", "10.0.0.0/08", "10.0.0.0/-1", "10.0.0.0/8/8"}) {
    const auto policy = AddressPolicy::Create({.networks = {network}});
    EXPECT_EQ(policy.status().code(), kSyntax) << network;
    EXPECT_NE(std::string(policy.status().message()).find(network), std::string::npos);
  }
  for (const char* own : {"localhost:1", "10.0.0.1", "10.0.0.1:x"}) {
    const auto policy = AddressPolicy::Create({.own_addresses = {own}});
    EXPECT_EQ(policy.status().code(), kSyntax) << own;
    EXPECT_NE(std::string(policy.status().message()).find(own), std::string::npos);
  }
}

}  // namespace
}  // namespace peerchunk
