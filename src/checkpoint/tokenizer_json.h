// tokenizer.json of a tokenizer, and what of a SentencePiece model it cannot say.
#pragma once

#include <string>

#include "src/tokens/tokenizer.h"

namespace coppice {

/// tokenizer.json for a SentencePiece BPE model that check_exportable() lets pass: ids equal SentencePiece's. For a
/// byte-level tokenizer its own text, byte for byte, with BOS as that says.
std::string tokenizer_json(const Tokenizer& tokenizer, bool add_bos);
/// Refuses at `where` (UserError::recipe) what tokenizer.json cannot say or other programs would read differently: a
/// control, unknown or byte piece that splits into two pieces, an unused piece that takes part in merges, BOS wanted
/// and none there. A byte-level tokenizer passes.
void check_exportable(const Tokenizer& tokenizer, const std::string& where, bool add_bos = false);
/// A user-defined piece that a text with nothing else in it loses its dummy prefix to (see tokenizer_json.cpp); empty =
/// there is none.
std::string piece_without_prefix(const Tokenizer& tokenizer);

}  // namespace coppice
