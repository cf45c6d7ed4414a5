// coppice: the list of verbs, and the place where errors become one line and an exit code.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <nlohmann/json.hpp>
#include <sstream>

#include "recipes/commands/language_scores.h"
#include "recipes/commands/verbs.h"
#include "recipes/folder/machine.h"
#include "recipes/folder/version.h"
#include "recipes/run/exit_code.h"
#include "src/base/errors.h"
#include "src/base/hdf5.h"
#include "src/base/log.h"
#include "src/base/threads.h"
#include "src/corpus/steps/classify.h"
#include "src/tensors/cuda_devices.h"
#include "src/tensors/device.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

constexpr void (*kVerbs[])(CLI::App&, Action&) = {
    add_run,  add_compress, add_rewind,   add_ablate, add_plan,   add_config, add_report, add_inspect,
    add_diff, add_eval,     add_generate, add_import, add_export, add_labels, add_data,   add_bench};

void print_version() {
  const Json versions = versions_json(), host = host_json();
  fmt::print("coppice {} ({}, {})\n", versions["coppice"].get<std::string>(), versions["git"].get<std::string>(),
             versions["build"].get<std::string>());
  for (const char* key : {"torch", "hdf5", "compiler"})
    fmt::print("{:<13} {}\n", key, versions[key].get<std::string>());
  std::istringstream libraries(kLibraries);
  for (std::string name, version; libraries >> name >> version;) fmt::print("{:<13} {}\n", name, version);
  fmt::print("{:<13} {}, {}, {} threads\n", "cpu", host["cpu"].get<std::string>(),
             host["cpu_capability"].get<std::string>(), host["threads"].get<int>());
  const int devices = num_cuda_devices();
  fmt::print("{:<13} {}\n", "cuda",
             !built_with_cuda() ? "not built in"
             : devices > 0      ? fmt::format("built in, {} device{}", devices, devices == 1 ? "" : "s")
                                : "built in; " + why_not_here(at::kCUDA));
}

int main_with_errors(int argc, char** argv) {
  CLI::App app("coppice: learn which FFN channels a language model needs, cut the rest, distil what is left");
  app.footer(
      "Example:\n  coppice plan recipes/demo.toml && coppice run recipes/demo.toml\n\nExit codes: 0 done, 1 internal, "
      "2 recipe or usage, 3 bad input file, 4 "
      "I/O or disk full, 5 run folder locked, 6 diverged,\n7 out of memory, 75 stopped after saving (run again).");
  app.require_subcommand(0, 1);
  app.fallthrough();
  bool version = false, quiet = false, json = false;
  app.add_flag("--version", version, "libraries, build and CPU");
  app.add_flag("--quiet", quiet, "warnings and errors only");
  app.add_flag("--json", json, "progress as JSON lines on stderr");
  Action action;
  for (const auto add : kVerbs) add(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);  // prints help or the message
    return code == 0 ? 0 : static_cast<int>(ExitCode::recipe);
  }
  set_log_style(quiet ? LogStyle::quiet : json ? LogStyle::json : LogStyle::automatic);
  if (version) {
    start_torch(0);
    print_version();
    flush_result();
    return 0;
  }
  if (!action) {
    fmt::print("{}", app.help());
    return static_cast<int>(ExitCode::recipe);
  }
  action();
  flush_result();
  return 0;
}

}  // namespace
}  // namespace coppice

COPPICE_BOUND_SPINNING;

int main(int argc, char** argv) {
  using namespace coppice;
  start_hdf5();
  set_language_model_opener(open_language_model);
  for (const int number : {SIGPIPE, SIGXFSZ})
    std::signal(number,
                SIG_IGN);  // EPIPE and EFBIG instead; run and ablate handle stops, elsewhere a signal ends at once
  return run_guarded([&] { return main_with_errors(argc, argv); });
}
