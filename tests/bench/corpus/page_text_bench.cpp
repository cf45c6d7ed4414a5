// Articles of the pages of a folder: one line a join, with pages and megabytes of HTML a second; or, for scoring, their
// texts.
//   page_text_bench PAGES            times all joins in turns
//   page_text_bench PAGES JOIN       one JSON object of texts, by the name of the file below the folder
// Pages are the files of the folder and those below it that are called so (.html, .html.gz, ...) or have no ending at
// all; hidden files are none.
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "src/corpus/sources/source_kinds.h"
#include "src/text/html/page_text.h"
#include "tests/bench/corpus/text_bench.h"

using namespace coppice;

namespace {

constexpr const char* kJoins[] = {"reader_or_boilerpipe", "reader", "boilerpipe"};

struct Page {
  std::string name, html = {};
};

bool is_page(const std::filesystem::directory_entry& entry) {
  const std::string name = entry.path().filename().string();
  return entry.is_regular_file() && !name.starts_with('.') &&
         (source_kind_of(entry.path()) == "html" || name.find('.') == std::string::npos);
}

std::vector<Page> read_pages(const std::filesystem::path& folder) {
  std::vector<Page> pages;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!is_page(entry)) continue;
    Page& page = pages.emplace_back(Page{.name = entry.path().lexically_relative(folder).generic_string()});
    ByteSource bytes(entry.path(), coding_of(entry.path()));
    for (std::string_view block = bytes.next(); !block.empty(); block = bytes.next()) page.html += block;
  }
  std::ranges::sort(pages, {}, &Page::name);
  return pages;
}

PageText extract(const std::string& html, const char* join) {
  return extract_page(html, {.join = find_page_join(join).value(), .respects_opt_out = false});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3 || (argc == 3 && !find_page_join(argv[2]))) {
    std::cerr << "page_text_bench PAGES [reader_or_boilerpipe | reader | boilerpipe | intersection | union]\n";
    return 2;
  }
  const std::vector<Page> pages = read_pages(argv[1]);
  if (pages.empty()) {
    std::cerr << "page_text_bench: no page below " << argv[1] << "\n";
    return 2;
  }
  if (argc == 3) {
    nlohmann::json texts = nlohmann::json::object();
    for (const Page& page : pages) texts[page.name] = extract(page.html, argv[2]).text;
    std::cout << texts.dump() << "\n";
    return 0;
  }
  double megabytes = 0;
  for (const Page& page : pages) megabytes += static_cast<double>(page.html.size()) / 1e6;
  std::vector<bench::Case> cases;
  size_t bytes = 0;
  for (const char* join : kJoins)
    cases.push_back({join, [&pages, &bytes, join] {
                       for (const Page& page : pages) bytes += extract(page.html, join).text.size();
                     }});
  const std::vector<double> seconds = bench::median_s(cases);
  for (size_t i = 0; i < cases.size(); ++i)
    bench::emit(std::string("extract_") + cases[i].name,
                {{"median_s", seconds[i]},
                 {"items_per_s", static_cast<double>(pages.size()) / seconds[i]},
                 {"mb_per_s", megabytes / seconds[i]}});
  return bytes == 0;
}
