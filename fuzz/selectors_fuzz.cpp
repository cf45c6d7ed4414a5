// A selector on the first line, a page behind it: the selector is parsed, and the page is read while it is matched.
#include "fuzz/target.h"
#include "src/corpus/maths/selectors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return coppice::fuzz::run(data, size, [](std::string_view bytes) {
    const size_t end = std::min(bytes.find('\n'), bytes.size());
    const coppice::Selector selector = coppice::parse_selector(bytes.substr(0, end), "selector");
    coppice::SelectorWatch watch({&selector});
    coppice::PageTree tree;
    coppice::read_page(bytes.substr(end), {}, tree, &watch);
    for (const coppice::SelectedNode& found : watch.found()[0])
      if (found.node == 0 || found.node >= tree.nodes.size()) std::abort();
  });
}
