// A page of questions and answers as a document's text.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/corpus/maths/sites.h"
#include "src/text/html/page_tree.h"

namespace coppice {

struct QaAnswer {
  std::string text;
  double votes = 0;
  bool has_votes = false, is_accepted = false;
};

struct QaPage {
  const QaSite* site = nullptr;   // the first whose page it is; nullptr: of no site
  Refusal refusal = Refusal::none;
  std::string title, question, date;
  double votes = 0;  // of the question
  bool has_votes = false;
  bool is_found = false;          // the selector of the question matched
  std::vector<QaAnswer> answers;  // those that are taken, best first
};

/// Reads a page with the selectors of the sites that may have it, in their order.
QaPage read_qa_page(std::string_view html, std::string_view url, const std::vector<QaSite>& sites,
                    const PageLimits& limits = {});

/// Title, question, and each answer behind `Answer:`, blank lines between.
std::string qa_text(const QaPage& page);

/// A count as sites write it: 12, -3, 1,204, 1.2k; nothing for other text.
std::optional<double> read_votes(std::string_view text);

}  // namespace coppice
