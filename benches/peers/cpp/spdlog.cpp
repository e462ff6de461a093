// spdlog's asynchronous logger: one thread, a queue with space for a burst, and a caller that waits where it is full.

#include "loads.hpp"

#include <spdlog/async.h>
#include <spdlog/async_logger.h>
#include <spdlog/details/null_mutex.h>
#include <spdlog/sinks/base_sink.h>

// Counts what arrives, and throws it away. Only the thread of the pool calls it, so it has no lock.
class Count final : public spdlog::sinks::base_sink<spdlog::details::null_mutex> {
  void sink_it_(const spdlog::details::log_msg&) override { events_read.fetch_add(1); }

  void flush_() override {}
};

int main(int count, char** arguments) {
  auto pool = std::make_shared<spdlog::details::thread_pool>(capacity, 1);
  auto logger = std::make_shared<spdlog::async_logger>("train", std::make_shared<Count>(), pool,
                                                       spdlog::async_overflow_policy::block);
  return row(count, arguments, "spdlog", "`info` of an asynchronous logger, two values, formatted by the caller",
             [&logger](double loss, std::uint64_t step) { logger->info("loss {} step {}", loss, step); });
}
