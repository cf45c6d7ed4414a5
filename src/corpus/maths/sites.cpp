#include "src/corpus/maths/sites.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/base/errors.h"
#include "src/cli/options.h"
#include "src/corpus/maths/domains.h"

namespace coppice {
namespace {

void take_selector(OptionTable& table, const char* key, Selector& selector, const char* help) {
  std::string text;
  table.take(key, text, help);
  if (!text.empty()) selector = parse_selector(text, table.where(key));
}

/// For selectors whose elements are asked for, not their text.
void take_element(OptionTable& table, const char* key, Selector& selector, const char* help) {
  take_selector(table, key, selector, help);
  if (!selector.attribute.empty())
    throw UserError::recipe(table.where(key), fmt::format("{}: got the attribute '@{}', expected an element alone", key,
                                                          printable(selector.attribute)));
}

QaSite read_site(OptionTable& table, const std::filesystem::path& file) {
  QaSite site;
  table.take("domain", site.domains, "the site's domain, with all below it, or several");
  table.take("paths", site.paths, "what addresses of questions hold: one of these, # for a digit; empty = anything");
  take_element(table, "marker", site.marker, "an element that pages of the site hold, whatever their domain");
  take_selector(table, "title", site.title, "the question's title; without it the page's");
  take_element(table, "question", site.question, "the question; the first element counts");
  take_selector(table, "votes", site.question_votes, "the question's votes");
  double min_votes = 0;
  table.take("min_votes", min_votes, "votes of question and answers at least");
  if (table.has("min_votes")) site.min_votes = min_votes;
  OptionTable answer = table.table("answer");
  take_element(answer, "each", site.answers, "an answer, whole");
  take_element(answer, "text", site.answer_text, "its text; without it all of it");
  take_selector(answer, "votes", site.answer_votes, "its votes");
  take_element(answer, "accepted", site.accepted, "an element of an accepted answer, or that answer");
  answer.take("best", site.best,
              "how many answers are taken at most: accepted ones, then by votes, then by place; 0 = all");
  answer.finish();
  table.finish();
  if (site.domains.empty() && site.marker.parts.empty())
    throw UserError::recipe(table.where(), "domain: got none, expected a domain, or a marker for sites of any domain");
  if (site.question.parts.empty() || site.answers.parts.empty())
    throw UserError::recipe(table.where(), "question, answer.each: expected selectors of both");
  if (site.best < 0)
    throw UserError::recipe(answer.where("best"), fmt::format("answer.best: got {}, expected 0 or more", site.best));
  site.name = site.domains.empty() ? file.stem().string() : site.domains.front();
  return site;
}

/// Whether `part`, in which # stands for a digit, is somewhere in the path.
bool holds_part(std::string_view path, std::string_view part) {
  const auto same = [](char c, char wanted) { return wanted == '#' ? c >= '0' && c <= '9' : c == wanted; };
  return part.empty() || std::search(path.begin(), path.end(), part.begin(), part.end(), same) != path.end();
}

}  // namespace

std::vector<QaSite> read_sites(const std::filesystem::path& file) {
  OptionTable root = RecipeSource::load(file, {}, {}).root();
  OptionTable maths = root.table("maths");
  std::vector<QaSite> sites;
  for (OptionTable& table : maths.tables("site")) sites.push_back(read_site(table, file));
  maths.finish();
  root.finish();
  if (sites.empty()) throw UserError::recipe(file.native(), "got no [[maths.site]], expected one or more");
  return sites;
}

bool may_be_of(const QaSite& site, std::string_view url) {
  const std::string host = host_of(url);
  const auto holds_host = [&](const std::string& domain) { return belongs_to(host, domain); };
  if (!site.domains.empty() && std::ranges::none_of(site.domains, holds_host)) return false;
  const size_t scheme = url.find("://");
  const size_t slash = scheme == std::string_view::npos ? scheme : url.find('/', scheme + 3);
  const std::string_view path = slash == std::string_view::npos ? "/" : url.substr(slash);
  return site.paths.empty() ||
         std::ranges::any_of(site.paths, [&](const std::string& part) { return holds_part(path, part); });
}

}  // namespace coppice
