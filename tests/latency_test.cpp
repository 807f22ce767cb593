// The median of measurements and its interval.
#include "latency.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace bnfold::test {
namespace {

// The numbers 1 to `count`, in any order.
Median median_of_first(int count) {
  std::vector<double> numbers(count);
  std::iota(numbers.begin(), numbers.end(), 1);
  std::shuffle(numbers.begin(), numbers.end(), std::mt19937());
  return median_of(numbers);
}

TEST(MedianOf, LiesInTheMiddle) {
  EXPECT_EQ(median_of_first(1).value, 1);
  EXPECT_EQ(median_of_first(4).value, 2.5);
  EXPECT_EQ(median_of_first(9).value, 5);
}

// P(X <= 1) = 0.011 for 10 coins and P(X <= 5) = 0.021 for 20; one head more would be over 0.025.
TEST(MedianOf, HasTheIntervalThatTheBinomialDistributionGives) {
  EXPECT_EQ(median_of_first(10).low, 2);
  EXPECT_EQ(median_of_first(10).high, 9);
  EXPECT_EQ(median_of_first(20).low, 6);
  EXPECT_EQ(median_of_first(20).high, 15);
}

TEST(MedianOf, HasTheRangeWhereThereAreFew) {
  EXPECT_EQ(median_of_first(5).low, 1);
  EXPECT_EQ(median_of_first(5).high, 5);
  EXPECT_EQ(median_of_first(6).low, 1);
}

TEST(MedianOf, TakesManyMeasurements) {
  const Median median = median_of_first(100000);
  EXPECT_NEAR(median.low, 50000 - 1.96 * std::sqrt(100000) / 2, 2);
  EXPECT_NEAR(median.high, 50000 + 1.96 * std::sqrt(100000) / 2, 2);
}

}  // namespace
}  // namespace bnfold::test
