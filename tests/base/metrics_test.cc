#include "peerchunk/base/metrics.h"

#include <thread>

#include <gtest/gtest.h>

namespace peerchunk {
namespace {

TEST(MetricsTest, SeriesIsFoundAgainWhateverTheOrderOfLabels) {
  Metrics metrics;
  Counter& counter = metrics.counter("reads_total", {{"source", "peer"}, {"file", "memfile"}});
  counter.Add(3);
  EXPECT_EQ(&metrics.counter("reads_total", {{"file", "memfile"}, {"source", "peer"}}), &counter);
  EXPECT_EQ(metrics.CounterValue("reads_total", {{"file", "memfile"}, {"source", "peer"}}), 3u);
}

TEST(MetricsTest, OtherLabelsAreAnotherSeries) {
  Metrics metrics;
  metrics.counter("reads_total", {{"source", "peer"}}).Add();
  EXPECT_EQ(metrics.CounterValue("reads_total", {{"source", "base"}}), 0u);
  EXPECT_EQ(metrics.CounterValue("reads_total"), 0u);
}

TEST(MetricsTest, AskingForAValueMakesNoSeries) {
  const Metrics metrics;
  EXPECT_EQ(metrics.CounterValue("never"), 0u);
  EXPECT_TRUE(metrics.Snapshot().empty());
}

TEST(MetricsTest, SnapshotIsOrderedByNameAndLabels) {
  Metrics metrics;
  metrics.counter("b_total").Add(2);
  metrics.gauge("c_bytes").Set(-5);
  metrics.counter("a_total", {{"source", "peer"}}).Add(1);
  metrics.counter("a_total", {{"source", "base"}}).Add(7);
  const std::vector<MetricSample> samples = metrics.Snapshot();
  ASSERT_EQ(samples.size(), 4u);
  EXPECT_EQ(samples[0].labels, (MetricLabels{{"source", "base"}}));
  EXPECT_EQ(samples[0].value, 7);
  EXPECT_EQ(samples[1].labels, (MetricLabels{{"source", "peer"}}));
  EXPECT_EQ(samples[2].name, "b_total");
  EXPECT_TRUE(samples[2].is_counter);
  EXPECT_EQ(samples[3].name, "c_bytes");
  EXPECT_EQ(samples[3].value, -5);
  EXPECT_FALSE(samples[3].is_counter);
}

TEST(MetricsTest, GaugeRisesAndFalls) {
  Metrics metrics;
  Gauge& gauge = metrics.gauge("in_flight_bytes");
  gauge.Add(10);
  gauge.Add(-4);
  EXPECT_EQ(gauge.value(), 6);
}

TEST(MetricsTest, ThreadsLoseNoCount) {
  Metrics metrics;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&metrics] {
      for (int n = 0; n < 1000; ++n) metrics.counter("n_total").Add();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(metrics.CounterValue("n_total"), 4000u);
}

}  // namespace
}  // namespace peerchunk
