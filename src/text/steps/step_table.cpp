#include "src/text/steps/step_table.h"

#include "src/text/steps/extract.h"

namespace coppice {
namespace {

constexpr StepRow kSteps[] = {
    {.name = "extract",
     .about = "turn folders of text, HTML and source code into documents",
     .example = "coppice data extract --source notes --license CC0-1.0 --output notes.jsonl.zst ~/notes",
     .expected =
         "a folder, or a file of HTML, text, source code or dictionary entries (.html, .txt, .py, .dict.dz, ...)",
     .reads = is_extractable,
     .read = read_extractable,
     .chain = extract_chain},
};

}  // namespace

std::span<const StepRow> step_table() { return kSteps; }

}  // namespace coppice
