// The words of the questions: five for each kind.
#pragma once

#include <array>
#include <string_view>

namespace coppice {

using Wordings = std::array<std::string_view, 5>;

// {0}: the sentence with a blank.
inline constexpr Wordings kFactWordings = {
    "In the text above, what stands in place of the blank? \"{0}\"",
    "Fill in the blank as the text has it: \"{0}\"",
    "One sentence of the text reads \"{0}\". What has been left out?",
    "Which words complete this sentence of the text? \"{0}\"",
    "Complete the sentence from the text: \"{0}\"",
};
// {0}: a title.
inline constexpr Wordings kFirstSentenceWordings = {
    "What is the first sentence of the section \"{0}\"?",
    "Quote the sentence that opens the section titled \"{0}\".",
    "How does the section called \"{0}\" begin? Give its first sentence.",
    "Repeat the first sentence that stands under the title \"{0}\".",
    "Which sentence comes right after the heading \"{0}\"?",
};
// {0}: a sentence.
inline constexpr Wordings kWhichSectionWordings = {
    "Which section says this? \"{0}\"",
    "Under which heading does this sentence stand? \"{0}\"",
    "Give the title of the section that contains \"{0}\"",
    "In which section of the text is this written? \"{0}\"",
    "What is the section called in which one reads \"{0}\"",
};
// {0}, {1}: how two sentences begin.
inline constexpr Wordings kOrderWordings = {
    "Which is told first, the sentence that begins \"{0}\" or the one that begins \"{1}\"? Quote it in full.",
    "Two sentences of the text begin \"{0}\" and \"{1}\". Quote the one that comes first.",
    "What does the text say earlier: \"{0} ...\" or \"{1} ...\"? Give the whole sentence.",
    "Of the sentences \"{0} ...\" and \"{1} ...\", write out the one that stands nearer to the beginning.",
    "Reading from the start, which of these does one meet first, \"{0} ...\" or \"{1} ...\"? Quote the sentence.",
};
// {0}: a title.
inline constexpr Wordings kListWordings = {
    "Which items does the list under \"{0}\" name?",
    "Copy the list that stands under \"{0}\".",
    "What is listed below \"{0}\"?",
    "Repeat all entries of the list that follows \"{0}\".",
    "Give the list introduced by \"{0}\", item by item.",
};
// {0}: two words.
inline constexpr Wordings kDocumentWordings = {
    "Which of the documents speaks of \"{0}\"?",
    "In which document do the words \"{0}\" occur?",
    "One of the documents above mentions \"{0}\". Which one?",
    "Name the document that contains \"{0}\".",
    "Where does one read about \"{0}\"? Give the heading of the document.",
};
// {0}: a made-up name. The statement that is put into the text also has {1}, its number.
inline constexpr Wordings kNeedleWordings = {
    "What is the pass number of {0}?",         "Which number belongs to {0}?", "Under which number is {0} registered?",
    "What number does one dial to reach {0}?", "Which code opens {0}?",
};
inline constexpr Wordings kNeedleStatements = {
    "The pass number of {0} is {1}.",          "The number that belongs to {0} is {1}.",
    "{0} is registered under the number {1}.", "To reach {0}, one dials the number {1}.",
    "The code that opens {0} is {1}.",
};

}  // namespace coppice
