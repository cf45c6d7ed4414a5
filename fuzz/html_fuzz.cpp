// A page to the text of its article by both readers, and as documentation; the text is UTF-8 whatever the page is.
#include <simdjson.h>

#include "fuzz/target.h"
#include "src/text/html/documentation_page.h"
#include "src/text/html/page_text.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return coppice::fuzz::run(data, size, [](std::string_view bytes) {
    const coppice::PageTexts texts = coppice::extract_page_by_both(bytes, {.respects_opt_out = false});
    const coppice::PageText joined =
        coppice::extract_page(bytes, {.join = coppice::PageJoin::all, .comments = true, .formulas = false});
    const std::string whole = coppice::html_to_text(bytes);
    for (const std::string_view text :
         {std::string_view(texts.reader.text), std::string_view(texts.boilerpipe.text), std::string_view(joined.text),
          std::string_view(joined.metadata.title), std::string_view(whole)})
      COPPICE_CHECK(simdjson::validate_utf8(text.data(), text.size()), "the text of a page is UTF-8");
  });
}
