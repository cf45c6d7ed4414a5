// Domains of a corpus: which there are, and what people call them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace coppice {

/// The host of an http or https address in lower case, without user, port and `www.`; empty for what is none.
std::string host_of(std::string_view url);
/// Whether a host is `domain` or ends in `.domain`.
bool belongs_to(std::string_view host, std::string_view domain);

/// Labels that people gave to domains.
class DomainLabels {
 public:
  DomainLabels() = default;
  /// A file of lines `domain<TAB>label`, which may go on behind another tab: as domain_lines() gives them. # opens
  /// comments, blank lines are passed over, and so is a domain whose label is empty. UserError::bad_file naming the
  /// line for another one and for a domain with two labels.
  explicit DomainLabels(const std::filesystem::path& file);
  /// Each once, sorted.
  std::set<std::string> labels() const;
  /// That of the host, else of the nearest domain above it, else `other`.
  const std::string& of(std::string_view host) const;

 private:
  std::map<std::string, std::string, std::less<>> labels_;
};

struct DomainCount {
  std::string domain;
  uint64_t documents = 0;
  std::vector<std::string> samples;  // how up to three of its documents begin, in one line each
};

/// Domains of the documents below a folder (or of one file) by metadata.url, the most frequent first, then by name. The
/// samples are those whose ids have the lowest hashes. Documents without an address are left out.
std::vector<DomainCount> list_domains(const std::filesystem::path& documents);
/// Lines for people to label: domain, an empty label, documents and samples with tabs between; a comment in front says
/// so. DomainLabels reads it back as it is.
std::string domain_lines(const std::vector<DomainCount>& domains);

}  // namespace coppice
