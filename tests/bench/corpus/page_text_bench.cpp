// Articles of the pages of a folder: one line a join, with pages and megabytes of HTML a second; or, for scoring, their
// texts.
//   page_text_bench PAGES            times all joins in turns
//   page_text_bench PAGES JOIN       one JSON object of texts, by the name of the file
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "src/base/files.h"
#include "src/text/html/page_text.h"
#include "tests/bench/corpus/text_bench.h"

using namespace coppice;

namespace {

constexpr const char* kJoins[] = {"reader_or_boilerpipe", "reader", "boilerpipe"};

struct Page {
  std::string name, html;
};

std::vector<Page> read_pages(const std::filesystem::path& folder) {
  std::vector<Page> pages;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    pages.push_back({entry.path().filename().string(), read_file(entry.path())});
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
