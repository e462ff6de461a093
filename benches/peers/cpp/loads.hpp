// The two loads of `../src/main.rs`, for loggers in C++: the same numbers of events, the same waits, the same row.

#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

// Space for a burst in every queue that has a size.
constexpr std::size_t capacity = 16'384;

// Events that the sink has read and thrown away.
inline std::atomic<std::uint64_t> events_read{0};

using Clock = std::chrono::steady_clock;

// Hides where a value comes from, so that the compiler computes nothing beforehand.
template <typename T>
T hidden(T value) {
  asm volatile("" : "+m"(value) : : "memory");
  return value;
}

template <typename Log>
double nanoseconds(std::uint64_t first, std::uint64_t end, Log& log) {
  const auto begun = Clock::now();
  for (std::uint64_t step = first; step < end; ++step) {
    log(hidden(0.5), step);
  }
  return std::chrono::duration<double, std::nano>(Clock::now() - begun).count();
}

// Waits until the sink has read so many events in all; ends the program if it does not.
inline void wait_for(std::uint64_t all) {
  const auto begun = Clock::now();
  while (events_read.load() < all) {
    if (Clock::now() - begun > std::chrono::seconds(5)) {
      std::fprintf(stderr, "%llu events are missing\n", static_cast<unsigned long long>(all - events_read.load()));
      std::exit(1);
    }
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
}

// 8,000 events in a row: nanoseconds a call.
template <typename Log>
double burst(Log& log) {
  const std::uint64_t all = events_read.load() + 8'000;
  const double spent = nanoseconds(0, 8'000, log);
  wait_for(all);
  return spent / 8'000;
}

// 100 steps of ten events, 200 microseconds apart: nanoseconds a call.
template <typename Log>
double steps(Log& log) {
  const std::uint64_t all = events_read.load() + 1'000;
  double spent = 0;
  for (std::uint64_t step = 0; step < 100; ++step) {
    spent += nanoseconds(10 * step, 10 * step + 10, log);
    const auto work = Clock::now();
    while (Clock::now() - work < std::chrono::microseconds(200)) {
    }
  }
  wait_for(all);
  return spent / 1'000;
}

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Runs both loads, once more than is counted, and prints the row.
template <typename Log>
int row(int count, char** arguments, const char* name, const char* what, Log log) {
  const bool is_test = count > 1 && std::strcmp(arguments[1], "--test") == 0;
  const int rounds = is_test ? 1 : 31;
  std::vector<double> bursts, all_steps;
  for (int round = 0; round <= rounds; ++round) {
    const double in_a_row = burst(log);
    const double by_steps = steps(log);
    if (round > 0) {
      bursts.push_back(in_a_row);
      all_steps.push_back(by_steps);
    }
  }
  std::printf("| %s | %s | %.0f | %.0f |\n", name, what, median(bursts), median(all_steps));
  return 0;
}
