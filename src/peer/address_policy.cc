#include "peerchunk/peer/address_policy.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "peerchunk/base/status.h"

namespace peerchunk {
namespace {

using Bytes16 = std::array<uint8_t, 16>;

// Decimal digits only, without leading zeros: "010" is 8 to some resolvers and 10 to others.
std::optional<uint32_t> ParseDecimal(std::string_view text, uint32_t limit) {
  if (text.empty() || text.size() > 5 || (text.size() > 1 && text[0] == '0')) return std::nullopt;
  uint32_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<uint32_t>(c - '0');
  }
  if (value > limit) return std::nullopt;
  return value;
}

std::optional<Bytes16> ParseV4(std::string_view text) {
  Bytes16 bytes{};
  bytes[10] = bytes[11] = 0xff;
  for (int i = 0; i < 4; ++i) {
    const size_t dot = text.find('.');
    if ((dot == std::string_view::npos) != (i == 3)) return std::nullopt;
    const auto octet = ParseDecimal(text.substr(0, dot), 255);
    if (!octet) return std::nullopt;
    bytes[12 + i] = static_cast<uint8_t>(*octet);
    if (i < 3) text.remove_prefix(dot + 1);
  }
  return bytes;
}

std::optional<Bytes16> ParseV6(std::string_view text) {
  if (text.find('\0') != std::string_view::npos)
    return std::nullopt;  // inet_pton would stop there.
  in6_addr parsed;
  if (inet_pton(AF_INET6, std::string(text).c_str(), &parsed) != 1) return std::nullopt;
  Bytes16 bytes;
  std::memcpy(bytes.data(), &parsed, bytes.size());
  return bytes;
}

bool InPrefix(const Bytes16& ip, const Bytes16& base, int bits) {
  const int whole = bits / 8;
  if (!std::equal(ip.begin(), ip.begin() + whole, base.begin())) return false;
  const int rest = bits % 8;
  if (rest == 0) return true;
  const auto mask = static_cast<uint8_t>(0xff << (8 - rest));
  return (ip[whole] & mask) == (base[whole] & mask);
}

// A range that is never dialled, whatever networks are configured.
struct Refusal {
  const char* base;  // IPv4 or IPv6.
  int prefix_bits;   // As written, of that family.
  const char* why;
};

// The first rule that holds names the reason, so the narrower ones stand first.
constexpr Refusal kRefusals[] = {
    {"169.254.169.254", 32, "the cloud metadata service"},
    {"100.100.100.200", 32, "the cloud metadata service"},
    {"168.63.129.16", 32, "the cloud metadata service"},
    {"192.0.0.192", 32, "the cloud metadata service"},
    {"fd00:ec2::", 32, "the cloud metadata service"},
    {"fd20:ce::", 32, "the cloud metadata service"},
    {"0.0.0.0", 8, "unspecified"},
    {"169.254.0.0", 16, "link-local"},
    {"224.0.0.0", 4, "multicast"},
    {"255.255.255.255", 32, "broadcast"},
    {"240.0.0.0", 4, "reserved"},
    {"::", 128, "unspecified"},
    {"fe80::", 10, "link-local"},
    {"ff00::", 8, "multicast"},
};

// IPv6 ranges in which an IPv4 address hides. The address dialled would not be the one checked.
constexpr Refusal kEmbeddings[] = {
    {"::ffff:0:0", 96, "IPv4-mapped"},
    {"::ffff:0:0:0", 96, "IPv4-translated"},
    {"64:ff9b::", 96, "NAT64"},
    {"64:ff9b:1::", 48, "NAT64"},
    {"2002::", 16, "6to4"},
    {"2001::", 32, "Teredo"},
    {"::", 96, "IPv4-compatible"},
};

bool Matches(const Refusal& rule, const Bytes16& ip, bool v4) {
  if (const auto base = ParseV4(rule.base)) return v4 && InPrefix(ip, *base, 96 + rule.prefix_bits);
  return !v4 && InPrefix(ip, *ParseV6(rule.base), rule.prefix_bits);
}

bool IsLoopback(const Bytes16& ip, bool v4) {
  return v4 ? ip[12] == 127 : InPrefix(ip, *ParseV6("::1"), 128);
}

bool IsUnspecified(const Bytes16& ip, bool v4) {
  const auto begin = v4 ? ip.begin() + 12 : ip.begin();
  return std::all_of(begin, ip.end(), [](uint8_t byte) { return byte == 0; });
}

std::string Text(const Bytes16& ip, bool v4, uint16_t port) {
  char text[INET6_ADDRSTRLEN];
  if (v4) {
    inet_ntop(AF_INET, ip.data() + 12, text, sizeof(text));
    return absl::StrCat(text, ":", port);
  }
  inet_ntop(AF_INET6, ip.data(), text, sizeof(text));
  return absl::StrCat("[", text, "]:", port);
}

// The addresses of this machine's interfaces. Empty when they cannot be listed.
std::vector<std::pair<Bytes16, bool>> MachineAddresses() {
  std::vector<std::pair<Bytes16, bool>> addresses;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return addresses;
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr) continue;
    Bytes16 bytes{};
    if (entry->ifa_addr->sa_family == AF_INET) {
      bytes[10] = bytes[11] = 0xff;
      std::memcpy(bytes.data() + 12,
                  &reinterpret_cast<const sockaddr_in*>(entry->ifa_addr)->sin_addr, 4);
      addresses.emplace_back(bytes, true);
    } else if (entry->ifa_addr->sa_family == AF_INET6) {
      std::memcpy(bytes.data(), &reinterpret_cast<const sockaddr_in6*>(entry->ifa_addr)->sin6_addr,
                  16);
      addresses.emplace_back(bytes, false);
    }
  }
  freeifaddrs(list);
  return addresses;
}

absl::Status Refused(std::string_view address, std::string_view why) {
  return absl::PermissionDeniedError(
      absl::StrCat("peer address ", AbslView(address), " is refused: ", AbslView(why)));
}

}  // namespace

absl::StatusOr<AddressPolicy::Endpoint> AddressPolicy::ParseEndpoint(std::string_view text) {
  const auto bad = [&](std::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat("address \"", AbslView(text), "\" ", AbslView(why),
                     "; write it as 10.1.2.3:7070 or [fd00::1]:7070"));
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return bad("has no port");
  const std::string_view host = text.substr(0, colon);
  Endpoint endpoint;
  const auto port = ParseDecimal(text.substr(colon + 1), 65535);
  if (!port) return bad("has no numeric port between 1 and 65535");
  endpoint.port = static_cast<uint16_t>(*port);
  std::optional<Bytes16> ip;
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    ip = ParseV6(host.substr(1, host.size() - 2));
  } else {
    ip = ParseV4(host);
    endpoint.ip.v4 = true;
  }
  if (!ip) return bad("is not numeric");
  endpoint.ip.bytes = *ip;
  endpoint.any_host = IsUnspecified(*ip, endpoint.ip.v4);
  return endpoint;
}

absl::StatusOr<AddressPolicy> AddressPolicy::Create(const Options& options) {
  AddressPolicy policy;
  std::vector<std::string> networks = options.networks;
  if (networks.empty()) networks = {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"};
  for (const std::string& text : networks) {
    const size_t slash = text.find('/');
    const std::string_view host = std::string_view(text).substr(0, slash);
    Network network;
    std::optional<Bytes16> base = ParseV4(host);
    network.base.v4 = base.has_value();
    if (!base) base = ParseV6(host);
    const uint32_t width = network.base.v4 ? 32 : 128;
    const auto bits = slash == std::string::npos
                          ? std::nullopt
                          : ParseDecimal(std::string_view(text).substr(slash + 1), width);
    if (!base || !bits) {
      return absl::InvalidArgumentError(absl::StrCat(
          "peer network \"", text, "\" is not a CIDR network such as 10.0.0.0/8 or fd00::/8"));
    }
    network.base.bytes = *base;
    network.prefix_bits = static_cast<int>(*bits + (network.base.v4 ? 96 : 0));
    policy.networks_.push_back(network);
  }
  for (const std::string& text : options.own_addresses) {
    auto endpoint = ParseEndpoint(text);
    if (!endpoint.ok()) return Annotate(endpoint.status(), "own listening address");
    if (IsLoopback(endpoint->ip.bytes, endpoint->ip.v4)) policy.loopback_allowed_ = true;
    policy.own_.push_back(*endpoint);
    if (!endpoint->any_host) continue;
    for (const auto& [bytes, v4] : MachineAddresses()) {
      policy.own_.push_back(
          {.ip = {.bytes = bytes, .v4 = v4}, .port = endpoint->port, .any_host = false});
    }
  }
  return policy;
}

absl::StatusOr<PeerAddress> AddressPolicy::Check(std::string_view address) const {
  PEERCHUNK_ASSIGN_OR_RETURN(const Endpoint peer, ParseEndpoint(address));
  const Bytes16& ip = peer.ip.bytes;
  const bool v4 = peer.ip.v4;
  if (peer.port == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("address \"", AbslView(address), "\" has port 0"));
  }
  for (const Refusal& rule : kRefusals) {
    if (Matches(rule, ip, v4)) return Refused(address, rule.why);
  }
  const bool loopback = IsLoopback(ip, v4);
  if (!loopback) {
    for (const Refusal& rule : kEmbeddings) {
      if (!Matches(rule, ip, v4)) continue;
      return Refused(address, absl::StrCat(rule.why, " form of an IPv4 address").c_str());
    }
  }
  for (const Endpoint& own : own_) {
    const bool same_host = own.any_host ? loopback : (own.ip.v4 == v4 && own.ip.bytes == ip);
    if (same_host && own.port == peer.port) return Refused(address, "this node itself");
  }
  if (loopback && !loopback_allowed_) {
    return Refused(address, "loopback, and this node does not listen on loopback");
  }
  const bool inside = std::any_of(networks_.begin(), networks_.end(), [&](const Network& network) {
    return network.base.v4 == v4 && InPrefix(ip, network.base.bytes, network.prefix_bits);
  });
  if (!loopback && !inside) {
    return Refused(address, "outside the configured peer networks; add its network to allow it");
  }
  const std::string text = Text(ip, v4, peer.port);
  return PeerAddress(text, absl::StrCat(v4 ? "ipv4:" : "ipv6:", text), loopback);
}

}  // namespace peerchunk
