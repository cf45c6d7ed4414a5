#include "src/text/html/name_marks.h"

#include <array>
#include <vector>

namespace coppice {

namespace {

struct MarkedWord {
  std::string_view word;  // a blank stands for an end of the name or white space in it
  uint32_t marks;
};

// The first four columns are those of Mozilla's Readability, so that its figures can be compared.
constexpr MarkedWord kWords[] = {
    {"-ad-", kUnlikely | kNegative},
    {"ai2html", kUnlikely},
    {"banner", kUnlikely | kNegative},
    {"breadcrumb", kUnlikely | kNoise},
    {"combx", kUnlikely | kNegative},
    {"comment", kUnlikely | kNegative},
    {"community", kUnlikely},
    {"cover-wrap", kUnlikely},
    {"disqus", kUnlikely | kComments},
    {"extra", kUnlikely},
    {"footer", kUnlikely | kNegative},
    {"gdpr", kUnlikely | kNegative},
    {"header", kUnlikely},
    {"legends", kUnlikely},
    {"menu", kUnlikely},
    {"related", kUnlikely | kNegative},
    {"remark", kUnlikely},
    {"replies", kUnlikely},
    {"rss", kUnlikely},
    {"shoutbox", kUnlikely | kNegative},
    {"sidebar", kUnlikely | kNegative},
    {"skyscraper", kUnlikely | kNegative},
    {"social", kUnlikely},
    {"sponsor", kUnlikely | kNegative},
    {"supplemental", kUnlikely},
    {"ad-break", kUnlikely},
    {"agegate", kUnlikely},
    {"pagination", kUnlikely | kPositive},
    {"pager", kUnlikely},
    {"popup", kUnlikely},
    {"yom-remote", kUnlikely},
    {"and", kMaybe},
    {"article", kMaybe | kPositive},
    {"body", kMaybe | kPositive},
    {"column", kMaybe},
    {"content", kMaybe | kPositive},
    {"main", kMaybe | kPositive},
    {"mathjax", kMaybe},
    {"shadow", kMaybe},
    {"entry", kPositive},
    {"page", kPositive},
    {"post", kPositive},
    {"text", kPositive},
    {"blog", kPositive},
    {"story", kPositive},
    {"hidden", kNegative},
    {" hid ", kNegative},
    {"com-", kNegative},
    {"contact", kNegative},
    {"masthead", kNegative},
    {"media", kNegative},
    {"meta", kNegative},
    {"outbrain", kNegative | kNoise},
    {"promo", kNegative},
    {"scroll", kNegative},
    {"share", kNegative | kShare},
    {"shopping", kNegative},
    {"tags", kNegative},
    {"widget", kNegative},
    {"byline", kByline},
    {"author", kByline},
    {"dateline", kByline},
    {"writtenby", kByline},
    {" comments ", kComments},
    {"comment-list", kComments},
    {"commentlist", kComments},
    {"comments-area", kComments},
    {"taboola", kNoise},
    {"newsletter", kNoise},
    {"sociable", kNoise},
    {"caption", kNoise},
    {"author-bio", kNoise},
    {"author_bio", kNoise},
    {"authorbox", kNoise},
    {"author-box", kNoise},
    {"about-author", kNoise},
    {"rating", kNoise},
    {"disclaimer", kNoise},
    {"copyright", kNoise},
    {"teaser", kNoise},
    {"recommend", kNoise},
    {"most-read", kNoise},
    {"read-more", kNoise},
    {"readmore", kNoise},
    {"read-next", kNoise},
    {"more-on", kNoise},
    {"subscribe", kNoise},
    {"signup", kNoise},
    {"cookie", kNoise},
    {"toolbar", kNoise},
    {"tag-list", kNoise},
    {"taglist", kNoise},
    {"post-tags", kNoise},
    {"timestamp", kNoise},
    {"post-meta", kNoise},
    {"entry-meta", kNoise},
    {"article-meta", kNoise},
    {"print-only", kNoise},
    {"noprint", kNoise},
    {"navigation", kNoise},
    {"nav-links", kNoise},
    {"post-nav", kNoise},
    {"advert", kNoise},
    {"lead", kLead},
    {"intro", kLead},
    {"standfirst", kLead},
    {"subtitle", kLead},
    {"subline", kLead},
    {"subhead", kLead},
    {"deck", kLead},
    {" dek ", kLead},
    {"-dek", kLead},
    {"abstract", kLead},
    {"bajada", kLead},
    {"description", kLead},
    {"summary", kLead},
    {"excerpt", kLead},
    {"katex-html", kFormula},
    {"mathjax_preview", kFormula},
    {" mathjax ", kFormula},
    {"mathjax_display", kFormula},
    {"mathjax_svg", kFormula},
    {"mathjax_chtml", kFormula},
};

/// Aho and Corasick's automaton over letters, digits, '-', '_' and one sign for everything else.
class Automaton {
 public:
  Automaton() {
    symbols_.fill(0);
    uint8_t next = 1;
    for (int c = 'a'; c <= 'z'; ++c) symbols_[c] = symbols_[c - 'a' + 'A'] = next++;
    for (int c = '0'; c <= '9'; ++c) symbols_[c] = next++;
    symbols_['-'] = next++;
    symbols_['_'] = next++;
    for (const char c : {' ', '\t', '\n', '\r', '\f'}) symbols_[static_cast<unsigned char>(c)] = next;
    states_.push_back({});
    for (const auto& [word, marks] : kWords) {
      uint16_t state = 0;
      for (const char c : word) {
        const uint8_t symbol = symbols_[static_cast<unsigned char>(c)];
        if (states_[state].next[symbol] == 0) {
          states_[state].next[symbol] = static_cast<uint16_t>(states_.size());
          states_.push_back({});
        }
        state = states_[state].next[symbol];
      }
      states_[state].marks |= marks;
    }
    std::vector<uint16_t> queue, fallback(states_.size(), 0);
    for (const uint16_t child : states_[0].next)
      if (child != 0) queue.push_back(child);
    for (size_t i = 0; i < queue.size(); ++i) {
      const uint16_t state = queue[i];
      states_[state].marks |= states_[fallback[state]].marks;
      for (size_t symbol = 0; symbol < kSymbols; ++symbol) {
        uint16_t& child = states_[state].next[symbol];
        const uint16_t behind = states_[fallback[state]].next[symbol];
        if (child == 0) {
          child = behind;
        } else {
          fallback[child] = behind;
          queue.push_back(child);
        }
      }
    }
    start_ = states_[0].next[symbols_[' ']];
  }

  uint32_t marks(std::string_view name) const {
    uint32_t found = 0;
    uint16_t state = start_;
    for (const char c : name) {
      state = states_[state].next[symbols_[static_cast<unsigned char>(c)]];
      found |= states_[state].marks;
    }
    return found | states_[states_[state].next[symbols_[' ']]].marks;
  }

 private:
  static constexpr size_t kSymbols = 40;
  struct State {
    std::array<uint16_t, kSymbols> next{};
    uint32_t marks = 0;
  };
  std::array<uint8_t, 256> symbols_;
  std::vector<State> states_;
  uint16_t start_ = 0;
};

}  // namespace

uint32_t name_marks(std::string_view name) {
  static const Automaton automaton;
  return name.empty() ? 0 : automaton.marks(name);
}

}  // namespace coppice
