#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace peerchunk {

// Keeps hedges to a share of all reads: each read earns a part of a token, each hedge takes one.
// Never more hedges than burst + share * reads. Thread-safe and lock-free.
class HedgeTokens {
 public:
  HedgeTokens(double share, double burst)
      : per_read_(static_cast<int64_t>(std::clamp(share, 0.0, 1.0) * kUnit)),
        most_(static_cast<int64_t>(std::max(burst, 0.0) * kUnit)),
        units_(most_) {}

  void OnRead() {
    int64_t units = units_.load(std::memory_order_relaxed);
    while (units < most_ && !units_.compare_exchange_weak(units, std::min(units + per_read_, most_),
                                                          std::memory_order_relaxed)) {
    }
  }
  bool Take() {
    int64_t units = units_.load(std::memory_order_relaxed);
    while (units >= kUnit) {
      if (units_.compare_exchange_weak(units, units - kUnit, std::memory_order_relaxed))
        return true;
    }
    return false;
  }
  // A hedge that was never sent.
  void GiveBack() {
    int64_t units = units_.load(std::memory_order_relaxed);
    while (!units_.compare_exchange_weak(units, std::min(units + kUnit, most_),
                                         std::memory_order_relaxed)) {
    }
  }

 private:
  static constexpr int64_t kUnit = 1'000'000;

  const int64_t per_read_;
  const int64_t most_;
  std::atomic<int64_t> units_;
};

}  // namespace peerchunk
