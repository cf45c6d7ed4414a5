// Names of what the step `pii` counts (`counts` of stats/<step>.json): found in documents that then go as well.
#pragma once

namespace coppice {

inline constexpr const char* kPersonalWords = "words";                // of all documents seen, by white space
inline constexpr const char* kPersonalSpans = "spans of ";            // and the kind
inline constexpr const char* kPersonalDocuments = "documents with ";  // and the kind

}  // namespace coppice
