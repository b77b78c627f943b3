#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

namespace peerchunk {

// An IPv4 or IPv6 address with a port that an AddressPolicy has let through. The only thing that
// can be dialled: there is no other way to make one, so the address checked is the address dialled.
class PeerAddress {
 public:
  // "10.1.2.3:7070" or "[fd00::1]:7070": the numeric, canonical form.
  const std::string& ToString() const { return text_; }
  // For gRPC: "ipv4:10.1.2.3:7070" or "ipv6:[fd00::1]:7070": no resolver is involved.
  const std::string& target() const { return target_; }
  bool is_loopback() const { return loopback_; }

  friend bool operator==(const PeerAddress& a, const PeerAddress& b) { return a.text_ == b.text_; }
  friend bool operator<(const PeerAddress& a, const PeerAddress& b) { return a.text_ < b.text_; }

 private:
  friend class AddressPolicy;
  PeerAddress(std::string text, std::string target, bool loopback)
      : text_(std::move(text)), target_(std::move(target)), loopback_(loopback) {}

  std::string text_;
  std::string target_;
  bool loopback_;
};

// Decides which addresses this node may dial (docs/security.md): numeric addresses and ports only,
// inside the configured networks, never link-local, metadata, multicast, unspecified or mapped
// forms of them, never this node itself. Loopback only for a node that itself listens on loopback.
// Immutable and thread-safe.
class AddressPolicy {
 public:
  struct Options {
    // CIDR networks that peers lie in. Empty: the private ranges 10/8, 172.16/12, 192.168/16,
    // fc00::/7.
    std::vector<std::string> networks;
    // This node's own listening addresses, "host:port" numeric; an unspecified host means every
    // address of this machine on that port. Loopback peers are allowed when one of them is
    // loopback.
    std::vector<std::string> own_addresses;
  };

  // InvalidArgument: a network or an own address that does not parse, by name.
  static absl::StatusOr<AddressPolicy> Create(const Options& options);

  // InvalidArgument: not a numeric address and port. PermissionDenied: not allowed, and by which
  // rule.
  absl::StatusOr<PeerAddress> Check(std::string_view address) const;

 private:
  struct Ip {
    std::array<uint8_t, 16> bytes{};  // IPv4 as ::ffff:a.b.c.d.
    bool v4 = false;
  };
  struct Network {
    Ip base;
    int prefix_bits = 0;  // Of the 16-byte form.
  };
  struct Endpoint {
    Ip ip;
    uint16_t port = 0;
    bool any_host = false;
  };
  AddressPolicy() = default;
  static absl::StatusOr<Endpoint> ParseEndpoint(std::string_view text);

  std::vector<Network> networks_;
  std::vector<Endpoint> own_;
  bool loopback_allowed_ = false;
};

}  // namespace peerchunk
