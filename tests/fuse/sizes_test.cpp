// Sizes that are equal whatever the inputs are.
#include "fuse/sizes.h"

#include <gtest/gtest.h>

namespace bnfold::test {
namespace {

class SymbolicSizes : public ::testing::Test {
 protected:
  // What a window that moves over n makes of it.
  SizeId moved(SizeId size, int64_t window, int64_t stride, int64_t padding) {
    return sizes.scaled(sizes.quotient(sizes.scaled(size, 1, 2 * padding - window), stride), 1, 1);
  }

  Sizes sizes;
  const SizeId n = sizes.unknown("n");
  const SizeId m = sizes.unknown("m");
};

TEST_F(SymbolicSizes, AreOneForOneName) {
  EXPECT_EQ(sizes.unknown("n"), n);
  EXPECT_NE(m, n);
  EXPECT_EQ(sizes.unknown("half", {n}), sizes.unknown("half", {n}));
  EXPECT_NE(sizes.unknown("half", {n}), sizes.unknown("half", {m}));
}

TEST_F(SymbolicSizes, StayBehindAWindowWithAsMuchPadding) {
  EXPECT_EQ(moved(n, 3, 1, 1), n);
  EXPECT_NE(moved(n, 3, 1, 0), n);
}

TEST_F(SymbolicSizes, AreOneBehindWindowsOfOneStride) {
  EXPECT_EQ(moved(n, 3, 2, 1), moved(n, 1, 2, 0));
  EXPECT_EQ(moved(n, 7, 2, 3), moved(n, 1, 2, 0));
  EXPECT_NE(moved(n, 3, 2, 0), moved(n, 1, 2, 0));
  EXPECT_NE(moved(n, 3, 3, 1), moved(n, 1, 2, 0));
}

TEST_F(SymbolicSizes, AreDividedInOneStepAsInTwo) {
  EXPECT_EQ(sizes.quotient(sizes.quotient(n, 2), 3), sizes.quotient(n, 6));
  EXPECT_EQ(moved(moved(n, 1, 2, 0), 1, 2, 0), moved(n, 1, 4, 0));
  EXPECT_NE(sizes.quotient(sizes.scaled(sizes.quotient(n, 2), 2, 0), 2), n);
}

TEST_F(SymbolicSizes, AreComputedWhereTheyAreNumbers) {
  for (const int64_t number : {0, 1, 7, 8}) {
    const SizeId rounded = sizes.quotient(sizes.constant(number), 2);
    EXPECT_EQ(sizes.number(rounded), number / 2);
  }
  EXPECT_EQ(sizes.number(sizes.quotient(sizes.constant(-1), 2)), -1);
  EXPECT_EQ(sizes.number(n), std::nullopt);
}

TEST_F(SymbolicSizes, AreProductsInAnyOrder) {
  const SizeId both = sizes.product(sizes.scaled(n, 1, 1), m);
  EXPECT_EQ(both, sizes.sum(sizes.product(m, n), m));
  EXPECT_EQ(sizes.exact_quotient({n, m, sizes.constant(6)}, {m, sizes.constant(3)}), sizes.scaled(n, 2, 0));
  EXPECT_EQ(sizes.exact_quotient({sizes.product(n, m)}, {m}), n);
  EXPECT_NE(sizes.exact_quotient({n}, {m}), n);
}

TEST_F(SymbolicSizes, AreBroadcastWhereOneIsKnown) {
  EXPECT_EQ(sizes.broadcast(n, n), n);
  EXPECT_EQ(sizes.broadcast(n, sizes.constant(1)), n);
  EXPECT_EQ(sizes.broadcast(sizes.constant(6), n), sizes.constant(6));
  EXPECT_NE(sizes.broadcast(n, m), n);
  EXPECT_NE(sizes.broadcast(n, m), m);
  EXPECT_EQ(sizes.broadcast(n, m), sizes.broadcast(m, n));
}

TEST_F(SymbolicSizes, AreNeverBelowZeroButNumbersMayBe) {
  EXPECT_FALSE(sizes.may_be_negative(sizes.scaled(n, 1, -2)));
  EXPECT_TRUE(sizes.may_be_negative(sizes.difference(n, m)));
  EXPECT_FALSE(sizes.may_be_negative(sizes.difference(sizes.scaled(n, 2, 0), n)));
  EXPECT_TRUE(sizes.may_be_negative(sizes.scaled(sizes.number_that_may_be_negative("k"), 2, 0)));
}

TEST_F(SymbolicSizes, AreKeptAsTheyAreWhereTheyWouldBeTooLong) {
  SizeId power = sizes.sum(n, m);
  for (int i = 0; i < 100; ++i) power = sizes.product(power, power);
  EXPECT_EQ(sizes.product(power, n), sizes.product(n, power));
  EXPECT_NE(power, sizes.sum(n, m));
}

TEST_F(SymbolicSizes, AreUnknownWhereTheyAreTooLarge) {
  const SizeId large = sizes.constant(int64_t{1} << 40);
  EXPECT_EQ(sizes.number(large), std::nullopt);
  EXPECT_EQ(sizes.number(sizes.product(sizes.constant(int64_t{1} << 31), sizes.constant(int64_t{1} << 31))), std::nullopt);
}

}  // namespace
}  // namespace bnfold::test
