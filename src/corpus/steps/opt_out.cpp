// opt_out: documents go whose publishers do not want them used: by lists of domains and addresses, by what the page and
// the server said to robots, by a reservation of text and data mining.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/cli/options.h"
#include "src/corpus/licences/address_table.h"
#include "src/corpus/licences/page_marks.h"
#include "src/corpus/step.h"
#include "src/text/ascii_case.h"
#include "src/text/byte_source.h"
#include "src/text/document_metadata.h"

namespace coppice {

namespace {

struct OptOutOptions {
  std::vector<std::string> lists;
  std::vector<std::string> directives = {"noai", "noindex", "none"};
  bool tdm_reservation = true;

  template <class Field>
  void visit_fields(Field& field) {
    field("lists", lists, Mark::place,
          "files of a domain (and all below it) or the beginning of an address a line; # opens a comment");
    field("directives", directives, Mark::decides,
          "words of robots <meta> and of X-Robots-Tag by which a page goes; empty = none");
    field("tdm_reservation", tdm_reservation, Mark::decides, "pages with tdm-reservation: 1 go");
  }
};

enum { kListed, kRobotsMeta, kXRobotsTag, kTdmReservation };

/// Directives that come with a value behind a colon, as the name of a robot does.
bool is_valued(std::string_view name) {
  constexpr std::array<std::string_view, 4> kNames = {"max-snippet", "max-image-preview", "max-video-preview",
                                                      "unavailable_after"};
  return std::ranges::any_of(kNames, [&](std::string_view valued) { return equals_ignoring_case(name, valued); });
}

/// Whether one of the words stands among `noindex, max-snippet:5`. Behind the name of another robot they are not for
/// us: `otherbot: noindex`; `; ` parts headers, each with a robot of its own.
bool has_directive(std::string_view headers, const std::vector<std::string>& words) {
  while (!headers.empty()) {
    const size_t end = std::min(headers.find(';'), headers.size());
    std::string_view header = headers.substr(0, end);
    headers.remove_prefix(std::min(end + 1, headers.size()));
    const size_t colon = header.find(':');
    if (colon != std::string_view::npos && colon < header.find(',')) {
      const std::string_view robot = trimmed_ascii(header.substr(0, colon));
      if (robot == "*")
        header.remove_prefix(colon + 1);
      else if (!is_valued(robot))
        continue;
    }
    while (!header.empty()) {
      const size_t comma = std::min(header.find_first_of(", \t"), header.size());
      const std::string_view word = header.substr(0, comma);
      if (std::ranges::any_of(words, [&](const std::string& wanted) { return equals_ignoring_case(word, wanted); }))
        return true;
      header.remove_prefix(std::min(comma + 1, header.size()));
    }
  }
  return false;
}

class OptOutLook : public DocumentLook {
 public:
  OptOutLook(const OptOutOptions& options, const AddressTable& listed) : options_(options), listed_(listed) {}

  bool look(Document& document, std::span<double> values, bool) override {
    PageMarks marks;
    if (document.is_page) marks = find_page_marks(document.text);
    if (marks.robots.empty()) marks.robots = member_text(document, "robots");
    const auto reserved = [](std::string_view value) { return trimmed_ascii(value) == "1"; };
    values[kListed] = listed_.size() > 0 && listed_.holds(member_text(document, "url"));
    values[kRobotsMeta] = has_directive(marks.robots, options_.directives);
    values[kXRobotsTag] = has_directive(member_text(document, "x_robots_tag"), options_.directives);
    values[kTdmReservation] = options_.tdm_reservation &&
                              (reserved(marks.tdm_reservation) || reserved(member_text(document, "tdm_reservation")));
    return false;
  }

 private:
  const OptOutOptions& options_;
  const AddressTable& listed_;
};

void read_list(const std::string& path, AddressTable& table) {
  constexpr uint64_t kMaxLine = 1 << 16;
  LineReader lines(path, ByteSource::Coding::plain, kMaxLine);
  for (std::string_view line; lines.next(line);) {
    if (lines.line_number() == 1 && line.starts_with(kByteOrderMark)) line.remove_prefix(kByteOrderMark.size());
    const std::string_view entry = trimmed_ascii(line.substr(0, line.find('#')));
    if (!entry.empty() && !table.add(entry))
      throw UserError::bad_file(path, fmt::format("line {}: got '{}', expected a domain or an address in ASCII "
                                                  "(names in other scripts as xn--...)",
                                                  lines.line_number(), printable(entry.substr(0, 80))));
  }
}

class OptOutStep : public DocumentStep {
 public:
  explicit OptOutStep(OptOutOptions options) : options_(std::move(options)) {
    for (const std::string& path : options_.lists) {
      read_list(path, listed_);
      hashes_.push_back(sha256_file(path));
    }
    listed_.sort();
  }
  std::vector<Rule> rules() const override {
    return {{"listed", 0, 0}, {"robots_meta", 0, 0}, {"x_robots_tag", 0, 0}, {"tdm_reservation", 0, 0}};
  }
  std::vector<std::string> inputs() const override { return hashes_; }
  Pages pages() const override { return Pages::takes; }
  bool reads_markup() const override { return !options_.directives.empty() || options_.tdm_reservation; }
  std::unique_ptr<DocumentLook> start() const override { return std::make_unique<OptOutLook>(options_, listed_); }

 private:
  const OptOutOptions options_;
  AddressTable listed_;
  std::vector<std::string> hashes_;
};

std::shared_ptr<const Step> read(OptionTable& table) {
  OptOutOptions options;
  table.read(options);
  return std::make_shared<OptOutStep>(std::move(options));
}

}  // namespace

extern const StepKind kOptOutStep;
const StepKind kOptOutStep = {
    "opt_out", "lets go what its publisher does not want used: lists, robots, tdm-reservation",
    "coppice data opt_out pages/ --lists domains.txt -o out", step_options<OptOutOptions>, read};

}  // namespace coppice
