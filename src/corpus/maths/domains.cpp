#include "src/corpus/maths/domains.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <unordered_map>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/text/document_metadata.h"
#include "src/text/documents.h"

namespace coppice {
namespace {

constexpr size_t kSamples = 3, kSampleBytes = 200;
const std::string kOther = "other";

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

std::string_view trimmed(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r"), text.size()));
  return text.substr(0, text.find_last_not_of(" \t\r") + 1);
}

/// How a text begins: white space and control characters are one blank, whole characters only.
std::string beginning(std::string_view text) {
  std::string line;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (line.size() >= kSampleBytes && (byte & 0xC0) != 0x80) break;
    if (byte > ' ' && byte != 0x7F)
      line += c;
    else if (!line.empty() && line.back() != ' ')
      line += ' ';
  }
  return line;
}

struct Sample {
  uint64_t hash;
  std::string line;
  auto operator<=>(const Sample&) const = default;
};

}  // namespace

std::string host_of(std::string_view url) {
  const size_t scheme = url.find("://");
  if (scheme == std::string_view::npos) return {};
  if (const std::string name = lower(url.substr(0, scheme)); name != "http" && name != "https") return {};
  url.remove_prefix(scheme + 3);
  url = url.substr(0, url.find_first_of("/?#\\"));
  url = url.substr(url.rfind('@') + 1);
  std::string host = lower(url.substr(0, url.find(':')));
  while (host.ends_with('.')) host.pop_back();
  return host.starts_with("www.") ? host.substr(4) : host;
}

bool belongs_to(std::string_view host, std::string_view domain) {
  return host == domain ||
         (host.size() > domain.size() && host.ends_with(domain) && host[host.size() - domain.size() - 1] == '.');
}

DomainLabels::DomainLabels(const std::filesystem::path& file) {
  const std::string text = read_file(file);
  int number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (trimmed(line).empty() || line.starts_with('#')) continue;
    const size_t tab = line.find('\t');
    const std::string domain = lower(trimmed(line.substr(0, tab)));
    const std::string where = fmt::format("{}:{}", file.native(), number);
    if (domain.empty() || tab == std::string_view::npos)
      throw UserError::bad_file(where, fmt::format("got '{}', expected a domain, a tab and a label", printable(line)));
    std::string_view label = line.substr(tab + 1);
    label = trimmed(label.substr(0, label.find('\t')));
    if (label.empty()) continue;
    if (const auto [known, is_new] = labels_.emplace(domain, label); !is_new && known->second != label)
      throw UserError::bad_file(where, fmt::format("{}: got the label '{}', but a line above says '{}'",
                                                   printable(domain), printable(label), printable(known->second)));
  }
}

std::set<std::string> DomainLabels::labels() const {
  std::set<std::string> labels;
  for (const auto& [domain, label] : labels_) labels.insert(label);
  return labels;
}

const std::string& DomainLabels::of(std::string_view host) const {
  for (;;) {
    if (const auto found = labels_.find(host); found != labels_.end()) return found->second;
    const size_t dot = host.find('.');
    if (dot == std::string_view::npos) return kOther;
    host.remove_prefix(dot + 1);
  }
}

std::vector<DomainCount> list_domains(const std::filesystem::path& documents) {
  struct Seen {
    uint64_t documents = 0;
    std::vector<Sample> samples;  // the largest hash first, as a heap has it
  };
  std::unordered_map<std::string, Seen> seen;
  CorpusOptions options;
  options.keep_fields = true;
  for_each_document(
      documents,
      [&](Document&& document) {
        const std::string host = host_of(member_text(document, "url"));
        if (host.empty()) return;
        Seen& domain = seen[host];
        ++domain.documents;
        domain.samples.push_back({sample_hash(document.id), beginning(document.text)});
        std::ranges::push_heap(domain.samples);
        if (domain.samples.size() <= kSamples) return;
        std::ranges::pop_heap(domain.samples);
        domain.samples.pop_back();
      },
      options);
  std::vector<DomainCount> domains;
  for (auto& [domain, found] : seen) {
    std::ranges::sort(found.samples);
    DomainCount& count = domains.emplace_back(DomainCount{domain, found.documents, {}});
    for (Sample& sample : found.samples) count.samples.push_back(std::move(sample.line));
  }
  std::ranges::sort(domains, [](const DomainCount& a, const DomainCount& b) {
    return a.documents != b.documents ? a.documents > b.documents : a.domain < b.domain;
  });
  return domains;
}

std::string domain_lines(const std::vector<DomainCount>& domains) {
  std::string lines = "# domain\tlabel, to be filled in\tdocuments\thow some of them begin\n";
  for (const DomainCount& domain : domains) {
    lines += fmt::format("{}\t\t{}", printable(domain.domain), domain.documents);
    for (const std::string& sample : domain.samples) lines += "\t" + printable(sample);
    lines += '\n';
  }
  return lines;
}

}  // namespace coppice
