// quill with its default settings: a queue of the thread, which grows, and a backend that sleeps 100 microseconds at a time.

#include "loads.hpp"

#include <quill/Backend.h>
#include <quill/Frontend.h>
#include <quill/LogMacros.h>
#include <quill/Logger.h>
#include <quill/sinks/Sink.h>

// Counts what was formatted, and throws it away.
class Count final : public quill::Sink {
 public:
  void write_log(quill::MacroMetadata const*, std::uint64_t, std::string_view, std::string_view, std::string const&,
                 std::string_view, quill::LogLevel, std::string_view, std::string_view,
                 std::vector<std::pair<std::string, std::string>> const*, std::string_view, std::string_view) override {
    events_read.fetch_add(1);
  }

  void flush_sink() override {}
};

int main(int count, char** arguments) {
  quill::Backend::start();
  // As its documentation asks where the first call counts.
  quill::Frontend::preallocate();
  quill::Logger* logger = quill::Frontend::create_or_get_logger("train", quill::Frontend::create_or_get_sink<Count>("count"));
  return row(count, arguments, "quill", "`LOG_INFO` with two values, formatted by its thread; nobody is woken",
             [logger](double loss, std::uint64_t step) { LOG_INFO(logger, "loss {} step {}", loss, step); });
}
