// Parquet through coppice-parquet, a child that writes rows as JSON lines into a pipe (parquet/main.cpp says why).
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "src/base/errors.h"
#include "src/base/input_file.h"
#include "src/corpus/sources/page_flag.h"
#include "src/corpus/sources/reading.h"
#include "src/text/byte_source.h"
#include "src/text/document_record.h"

namespace coppice {

namespace {

namespace fs = std::filesystem;

constexpr const char* kHelper = "coppice-parquet";
constexpr int kSilence_ms = 600'000;  // without a row from the child

/// COPPICE_PARQUET, or beside this program, or a folder above, where the tests' programs lie; empty: not there.
fs::path find_helper() {
  std::error_code error;
  if (const char* named = std::getenv("COPPICE_PARQUET")) return fs::exists(named, error) ? named : fs::path();
  const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (const fs::path& place : {folder, folder.parent_path()})
    if (fs::exists(place / kHelper, error)) return place / kHelper;
  return {};
}

struct Descriptor {
  int number = -1;
  ~Descriptor() { close(); }
  void close() {
    if (number >= 0) ::close(number);
    number = -1;
  }
};

/// The child and the read end of its pipe; killed and waited for with this.
class Helper {
 public:
  Helper(const fs::path& program, const fs::path& file, const std::string& column, uint64_t max_bytes) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw IoError(program.string(), "cannot make a pipe", errno);
    out_.number = ends[0];
    Descriptor write_end{ends[1]};
    errors_.number = ::memfd_create("coppice-parquet errors", MFD_CLOEXEC);
    if (errors_.number < 0) throw IoError(program.string(), "cannot keep its messages", errno);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, write_end.number, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, errors_.number, STDERR_FILENO);
    std::string arguments[] = {program.string(), file.string(), column, fmt::format("{}", max_bytes)};
    char* argv[] = {arguments[0].data(), arguments[1].data(), arguments[2].data(), arguments[3].data(), nullptr};
    const int error = posix_spawn(&child_, argv[0], &actions, nullptr, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) throw IoError(program.string(), "cannot be started", error);
  }
  Helper(const Helper&) = delete;
  Helper& operator=(const Helper&) = delete;
  ~Helper() { end(); }

  /// The next block of what it writes; empty at its end.
  std::string_view next(const fs::path& file) {
    pollfd ready{.fd = out_.number, .events = POLLIN, .revents = 0};
    for (;;) {
      const int count = ::poll(&ready, 1, kSilence_ms);
      if (count == 0) throw UserError::bad_file(file.string(), "its reader says nothing for ten minutes: damaged");
      const ssize_t got = count < 0 ? -1 : ::read(out_.number, block_.data(), block_.size());
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw IoError(file.string(), "cannot read what coppice-parquet writes", errno);
      return {block_.data(), static_cast<size_t>(got)};
    }
  }

  /// At the end of what it writes: its exit status as waitpid() gives it.
  int wait() {
    int status = 0;
    while (::waitpid(child_, &status, 0) < 0 && errno == EINTR) {
    }
    child_ = -1;
    return status;
  }

  std::string messages() const {
    char text[1000];
    const ssize_t got = ::pread(errors_.number, text, sizeof text, 0);
    std::string_view line(text, got > 0 ? static_cast<size_t>(got) : 0);
    return printable(line.substr(0, line.find('\n')));
  }

 private:
  void end() {
    if (child_ <= 0) return;
    ::kill(child_, SIGKILL);
    wait();
  }

  pid_t child_ = -1;
  Descriptor out_, errors_;
  std::string block_ = std::string(size_t{1} << 18, '\0');
};

void check_status(const SourceReading& reading, int status, const Helper& helper) {
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
  const std::string path = reading.file.path.string();
  if (WIFEXITED(status) && WEXITSTATUS(status) == 3) throw UserError::bad_file(path, helper.messages());
  if (WIFEXITED(status))
    throw IoError(path, fmt::format("coppice-parquet ends with {}: {}", WEXITSTATUS(status), helper.messages()));
  throw UserError::bad_file(path,
                            fmt::format("its reader was ended by signal {}: damaged, or larger than its limits of "
                                        "memory and time allow",
                                        WTERMSIG(status)));
}

class RowReader {
 public:
  explicit RowReader(SourceReading& reading) : reading_(reading), parser_("text", /*keep_fields=*/true) {}

  void add(std::string_view bytes) {
    lines_.append(bytes);
    size_t begin = 0;
    for (size_t end; (end = lines_.find('\n', std::max(begin, searched_))) != std::string::npos; begin = end + 1) {
      lines_.reserve(lines_.size() + LineReader::kPadding);  // may move them: before a view is taken
      read(std::string_view(lines_).substr(begin, end - begin));
    }
    lines_.erase(0, begin);
    searched_ = lines_.size();
  }

 private:
  void read(std::string_view line) {
    reading_.begin_record();
    ++row_;
    if (line == "too long")
      return reading_.damage("too long", row_,
                             fmt::format("is longer than {} bytes", reading_.limits.max_document_bytes));
    try {
      Document document = parser_.parse(line);
      document.line = row_;
      take_page_flag(document);
      reading_.take(std::move(document));
    } catch (const BadRecord& error) {
      const bool is_utf8 = std::string_view(error.what()).find("is not valid UTF-8") != std::string_view::npos;
      reading_.damage(is_utf8 ? "invalid UTF-8" : "no text", row_, error.what());
    }
  }

  SourceReading& reading_;
  RecordParser parser_;
  std::string lines_;
  size_t searched_ = 0;
  uint64_t row_ = 0;
};

}  // namespace

bool can_read_parquet() { return !find_helper().empty(); }

void read_parquet_source(SourceReading& reading) {
  const fs::path& path = reading.file.path;
  const fs::path program = find_helper();
  if (program.empty())
    throw UserError::recipe(reading.source.where,
                            fmt::format("'{}' is Parquet, which coppice-parquet reads; it is not beside this program: "
                                        "`make parquet` fetches what it needs and builds it",
                                        path.string()));
  ::close(open_for_reading(path));  // a missing file, a FIFO
  Helper helper(program, path, reading.source.text, reading.limits.max_document_bytes);
  RowReader rows(reading);
  for (std::string_view block; !(block = helper.next(path)).empty();) rows.add(block);
  check_status(reading, helper.wait(), helper);
  std::error_code error;
  reading.set_bytes_read(fs::file_size(path, error));
}

}  // namespace coppice
