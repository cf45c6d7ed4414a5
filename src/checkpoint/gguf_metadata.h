// What a GGUF file says beside shape and weights: names, licence, where the model comes from; its tokenizer; what
// HfSettings keeps. Torch-free. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <string>
#include <vector>

#include "src/checkpoint/gguf_file.h"
#include "src/checkpoint/hf_settings.h"
#include "src/tokens/gguf_vocabulary.h"

namespace coppice {

/// A model or a set of texts that a model was made from (general.base_model.N.*, general.dataset.N.*); empty = not
/// said.
struct GgufReference {
  std::string name, version, organization, repo_url;

  bool operator==(const GgufReference&) const = default;
};

inline constexpr uint64_t kMaxGgufReferences = 256;  // of one kind in a file that is read

/// Keys general.*; empty = not said.
struct GgufGeneral {
  std::string name, basename, size_label;
  std::string license, license_name, license_link;  // an identifier; for "other" what it is called, where it stands
  std::vector<GgufReference> base_models, datasets;

  bool operator==(const GgufGeneral&) const = default;
};

/// Texts that are not UTF-8, or longer than a name, are left out.
GgufGeneral read_gguf_general(const GgufFile& file);

/// The keys tokenizer.*; UserError::bad_file where there are none, ids lie outside the tokens, or lists of other types
/// or lengths stand there. Whether the tokenizer is one that can be imported: tokenizer_from_gguf().
GgufVocabulary read_gguf_vocabulary(const GgufFile& file);

/// End-of-text ids (eos, and eot where it is another), BOS before a text, chat template; what stays behind is said, as
/// by read_hf_settings().
ReadSettings read_gguf_settings(const GgufFile& file);

/// The type of most weights ("Q4_1"), by elements, norms and biases aside.
std::string weight_type(const GgufFile& file);
/// Whether any weight is held in another type than F32, F16 and BF16.
bool has_quantised_weights(const GgufFile& file);

}  // namespace coppice
