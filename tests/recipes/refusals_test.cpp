// Every UserError in what a stage runs, and why it could not be thrown before the first stage: a table beside the
// source text. A new one needs a row here, and its author the question whether config, plan and run can know it
// (recipes/run/before_work.h).
#include <doctest/doctest.h>

#include <algorithm>

#include "tests/recipes/program.h"

using namespace coppice::test;

namespace {

enum class Why {
  before,    // config, plan or run have thrown it before the first stage; in the stage it is a second fence
  first,     // of the data, or of what is taken over from elsewhere: read before anything is trained (work_order)
  own_file,  // of a file that this run, or another one of this program, has written: damaged or exchanged since
  values,    // only weights, activations or scores that the stage itself makes or meets tell
  command,   // no stage comes here: another command does
};

struct Row {
  const char* file;
  const char* part;  // of the statement; empty: all others of the file
  int count;
  Why why;
  const char* reason;
};

constexpr Row kRows[] = {
    // -- stages --
    {"recipes/stages/run_learn_masks.cpp", "", 1, Why::own_file, "living channels of its own checkpoint"},
    {"recipes/stages/prune.cpp", "learned what each layer keeps", 1, Why::before, "check_prune"},
    {"recipes/stages/prune.cpp", "belong to another model", 1, Why::own_file,
     "masks.h5 and model of one learn_masks stage"},
    {"recipes/stages/prune.cpp", "these masks are of axis", 1, Why::own_file,
     "masks.h5 of one learn_masks stage, whose axis load_recipe compares"},
    {"recipes/stages/label.cpp", "", 1, Why::before, "load_recipe looks for the files of every domain"},
    {"recipes/stages/stored_labels.cpp", "", 2, Why::first,
     "labels from elsewhere: asked for every reader at the end of their stage; own labels are made for what is drawn"},
    {"recipes/stages/training.cpp", "belongs to other options", 1, Why::own_file,
     "a checkpoint under the stage's folder"},
    {"recipes/stages/training.cpp", "was trained on", 1, Why::own_file, "a checkpoint beside another data folder"},
    {"recipes/stages/score_tasks.cpp", "", 1, Why::before,
     "check_evaluate; with a tokenizer that the run trains, as soon as there is one"},
    // -- teacher, pruning --
    {"teacher/label.cpp", "", 1, Why::values, "logits of the teacher are not finite"},
    {"pruning/compaction.cpp", "", 1, Why::own_file, "living channels of a checkpoint"},
    {"pruning/mask_budget.cpp", "", 4, Why::before, "load_recipe calls check_budget itself"},
    {"pruning/mask_file.cpp", "", 11, Why::own_file, "masks.h5"},
    {"pruning/mask_methods.cpp", "", 1, Why::before, "load_recipe looks the name up"},
    {"pruning/mask_options.cpp", "", 3, Why::before, "load_recipe calls check_mask_options itself"},
    {"pruning/apply_plan.cpp", "", 2, Why::own_file, "the plan is made of this very model"},
    {"pruning/plan.cpp", "(the source's {})", 1, Why::before,
     "load_recipe compares target and source; layers cut under one budget keep what they have"},
    {"pruning/plan.cpp", "scores are not finite", 1, Why::values, "scores of the source"},
    {"pruning/plan.cpp", "", 5, Why::command, "load_plan: inspect and diff"},
    {"pruning/refit.cpp", "are not finite", 1, Why::values, "hidden states of the cut on calibration text"},
    {"pruning/refit.cpp", "refit_damping: got", 1, Why::values,
     "second moments of the hidden states of the cut on calibration text"},
    {"pruning/scores.cpp", "FLAP with its bias", 1, Why::before, "load_recipe looks the name up"},
    {"pruning/scores.cpp", "unknown score", 1, Why::before, "load_recipe looks the name up"},
    {"pruning/scores.cpp", "layers of different FFN widths", 1, Why::before,
     "load_recipe: learned masks need one width; prune scores uneven layers"},
    // -- models from elsewhere --
    {"src/checkpoint/given_model.cpp", "has no tokenizer.model", 1, Why::before, "load_recipe compares fingerprints"},
    {"src/checkpoint/given_model.cpp", "were asked for", 1, Why::before, "load_recipe compares rows and ids"},
    {"src/checkpoint/given_model.cpp", "rows in the vocabulary table", 1, Why::command, "coppice import"},
    {"src/checkpoint/model_card.cpp", "", 1, Why::first,
     "read_model_card warns: a card is no reason to refuse a model"},
    // -- optimizer, model --
    {"src/optim/optimizer.cpp", "", 2, Why::before, "read_training calls check_optimizer_options itself"},
    {"src/model/config.cpp", "", 9, Why::before,
     "load_recipe for tables and imports; for model folders the run's own manifest"},
    {"src/model/continuations.cpp", "", 2, Why::before,
     "check_evaluate encodes every choice and compares it with the models' positions"},
    {"src/model/generate.cpp", "", 4, Why::command, "coppice generate"},
    // -- checkpoint --
    {"src/checkpoint/checkpoint.cpp", "keep_last", 1, Why::before, "read_training has the same bound"},
    {"src/checkpoint/checkpoint.cpp", "", 5, Why::own_file, "checkpoints and model folders"},
    {"src/checkpoint/tensor_folder.cpp", "", 15, Why::own_file, "checkpoints and model folders"},
    {"src/checkpoint/hf_export.cpp", "not finite", 1, Why::values, "weights after training"},
    {"src/checkpoint/hf_export.cpp", "dtype", 1, Why::before, "load_recipe"},
    {"src/checkpoint/hf_export.cpp", "beside QK-norm", 1, Why::before,
     "no recipe writes such a model, and the import of one is refused"},
    {"src/checkpoint/hf_export.cpp", "pieces, but the model", 1, Why::before,
     "every model of a recipe has the tokenizer's vocabulary"},
    {"src/checkpoint/tokenizer_json.cpp", "", 4, Why::before, "check_export"},
    {"src/checkpoint/hf_import.cpp", "differs from model.embed_tokens", 1, Why::first, "values of an imported folder"},
    {"src/checkpoint/hf_import.cpp", "values that are not finite", 1, Why::first, "values of an imported folder"},
    {"src/checkpoint/hf_import.cpp", "is not zero beyond", 1, Why::first, "values of an imported folder"},
    {"src/checkpoint/hf_config.cpp", "", 9, Why::before, "load_recipe reads config.json"},
    {"src/checkpoint/hf_import.cpp", "", 10, Why::before, "check_import reads index and headers"},
    {"src/checkpoint/safetensors.cpp", "", 3, Why::before,
     "check_import reads every header; the bytes behind it are as long as it says"},
    {"src/checkpoint/safetensors_header.cpp", "", 19, Why::before, "check_import reads every header"},
    {"src/checkpoint/gguf_file.cpp", "", 18, Why::before, "check_import reads the header"},
    {"src/checkpoint/gguf_config.cpp", "", 6, Why::before, "load_recipe reads the shape"},
    {"src/checkpoint/gguf_metadata.cpp", "", 2, Why::before, "check_before_work reads the tokenizer"},
    {"src/checkpoint/gguf_import.cpp", "values that are not finite", 1, Why::first, "values of an imported file"},
    {"src/checkpoint/gguf_import.cpp", "is not zero beyond", 1, Why::first, "values of an imported file"},
    {"src/checkpoint/gguf_import.cpp", "", 5, Why::before, "check_import reads header and shape"},
    {"src/checkpoint/gguf_export.cpp", "never exported", 1, Why::values, "weights after training"},
    {"src/checkpoint/gguf_export.cpp", "", 4, Why::before, "check_gguf_export"},
    // -- data --
    {"src/tokens/source_rights.cpp", "", 1, Why::before, "load_recipe reads the rights of every domain"},
    {"src/text/byte_source.cpp", "", 2, Why::first, "corpus, tasks and labels from elsewhere"},
    {"src/text/array_reader.cpp", "", 1, Why::first, "corpus"},
    {"src/text/documents.cpp", "", 10, Why::first, "corpus"},
    {"src/text/documents_folder.cpp", "", 1, Why::first, "the folder of a corpus as one's text"},
    {"src/text/corpus_sha256.cpp", "", 3, Why::before, "identities hash every corpus before the first stage"},
    {"src/text/extraction.cpp", "", 1, Why::command, "coppice data extract"},
    {"src/text/charset.cpp", "", 1, Why::first, "an encoding of a page that the iconv of this system lacks"},
    {"src/text/html/documentation_page.cpp", "", 4, Why::command, "coppice data extract"},
    {"src/text/member_source.cpp", "", 4, Why::first, "corpus, and what a corpus is made of"},
    {"src/tokens/sentencepiece_walk.cpp", "", 2, Why::before, "a tokenizer that is given is read by check_before_work"},
    {"src/tokens/sentencepiece_tokenizer.cpp", "", 3, Why::before,
     "a tokenizer that is given is read by check_before_work"},
    {"src/tokens/sentencepiece_model.cpp", "", 1, Why::before,
     "a tokenizer that is given is read by check_before_work"},
    {"src/tokens/tokenizer_json_file.cpp", "", 2, Why::before,
     "a tokenizer that is given is read by check_before_work"},
    {"src/tokens/byte_level_tokenizer.cpp", "", 3, Why::before,
     "a tokenizer that is given is read by check_before_work"},
    {"src/tokens/regex_split.cpp", "does not end", 1, Why::first, "corpus: what text makes of a pattern"},
    {"src/tokens/regex_split.cpp", "", 2, Why::before, "a tokenizer that is given is read by check_before_work"},
    {"src/tokens/gguf_vocabulary.cpp", "UserError::recipe", 2, Why::before, "check_export asks for a tokenizer's keys"},
    {"src/tokens/gguf_vocabulary.cpp", "", 1, Why::before, "a tokenizer that is given is read by check_before_work"},
    {"src/tokens/make_tokenizer.cpp", "", 1, Why::before, "check_before_work reads a tokenizer that is given"},
    {"src/tokens/tokenizer_training.cpp", "", 7, Why::first, "options as load_recipe has them; the text is the corpus"},
    {"src/tokens/token_shard_writer.cpp", "", 2, Why::first, "corpus"},
    {"src/tokens/token_shards.cpp", "", 14, Why::own_file, "data/tokens"},
    {"src/tokens/columns.cpp", "", 5, Why::own_file, "columns of token shards and label caches"},
    {"src/data/tokenize_domain.cpp", "", 1, Why::first, "corpus"},
    {"src/data/prepared_data.cpp", "", 1, Why::own_file, "data/tokens beside data/tokenizer"},
    {"src/data/make_tasks.cpp", "", 1, Why::command, "coppice data tasks"},
    {"src/data/loader.cpp", "the checkpoint counts", 1, Why::own_file, "a checkpoint"},
    {"src/data/loader.cpp", "", 6, Why::before, "check_windows draws as the stages will"},
    {"src/data/label_import.cpp", "", 1, Why::first, "labels from elsewhere"},
    {"src/data/label_line.cpp", "", 1, Why::first, "labels from elsewhere; their first line by check_label"},
    {"src/data/label_table.cpp", "", 5, Why::first, "runs of packed labels, in a cache that its stage opens"},
    {"src/data/label_cache.cpp", "", 5, Why::first,
     "a cache from elsewhere is opened by its stage; the run's own is its own file"},
    {"src/data/label_draws.cpp", "", 2, Why::first, "counts of draws, in a cache that its stage opens"},
    {"src/data/label_fingerprint.cpp", "", 4, Why::first, "fingerprints by check_label"},
    {"src/data/label_cache_files.cpp", "", 1, Why::first, "a cache from elsewhere is opened by its stage"},
    {"src/data/label_file.cpp", "other counts than a moment ago", 1, Why::first,
     "a cache from elsewhere, written to while its stage opens it"},
    {"src/data/label_file.cpp", "", 10, Why::first, "columns of a cache that its stage opens"},
    // -- the corpus of a recipe: made before the data, in what its identity names --
    {"src/corpus/run/corpus_settings.cpp", "", 11, Why::before, "load_recipe reads sources and steps"},
    {"src/corpus/run/corpus_folder.cpp", "", 3, Why::first, "a corpus of other settings or inputs in its place"},
    {"src/corpus/run/run_corpus.cpp", "", 2, Why::first,
     "another task of this number; a document that is gone from a complete corpus"},
    {"src/corpus/run/raw_pages.cpp", "", 2, Why::first, "pages and steps for texts, as the corpus is made"},
    {"src/corpus/run/document_chain.cpp", "", 1, Why::first, "a page among texts: what a source holds"},
    {"src/corpus/run/file_pass.cpp", "", 3, Why::first, "pages without a step that reads them; what a source holds"},
    {"src/corpus/run/pass_documents.cpp", "", 1, Why::own_file, "documents between two passes"},
    {"src/corpus/run/value_rows.cpp", "", 1, Why::own_file, "values of a pass"},
    {"src/corpus/report/own_lines.cpp", "", 1, Why::own_file, "documents, removals and clusters of the corpus"},
    {"src/corpus/report/kept_documents.cpp", "", 1, Why::own_file, "documents of the corpus"},
    {"src/corpus/run/plan_corpus.cpp", "", 2, Why::command, "coppice data plan"},
    {"src/corpus/run/step_verb.cpp", "", 1, Why::command, "coppice data <step>"},
    {"src/corpus/run/task_share.cpp", "", 2, Why::command, "coppice data run; a recipe makes its corpus as one task"},
    {"src/corpus/sources/list_files.cpp", "", 1, Why::first, "files of sources, listed as the corpus is made"},
    {"src/corpus/sources/output_folder.cpp", "", 2, Why::first, "folders of sources and corpus, as the corpus is made"},
    {"src/corpus/sources/json_source.cpp", "", 2, Why::first, "what a source holds"},
    {"src/corpus/sources/parquet_source.cpp", "", 4, Why::first, "what a source holds; the program that reads it"},
    {"src/corpus/sources/reading.cpp", "", 1, Why::first, "what a source holds"},
    {"src/corpus/sources/warc_source.cpp", "", 1, Why::first, "what a source holds"},
    {"src/corpus/sources/convert.cpp", "", 2, Why::command, "conversion is no part of a corpus"},
    {"src/corpus/extract_files.cpp", "", 6, Why::command, "coppice data extract"},
    {"src/corpus/extract_inputs.cpp", "", 4, Why::command, "coppice data extract"},
    {"src/corpus/steps/classify.cpp", "", 5, Why::before, "load_recipe reads every step"},
    {"src/corpus/steps/code.cpp", "", 4, Why::before, "load_recipe reads every step"},
    {"src/corpus/steps/decontaminate.cpp", "", 2, Why::before, "load_recipe reads every step"},
    {"src/corpus/steps/dedup.cpp", "", 2, Why::before, "load_recipe reads every step"},
    {"src/corpus/steps/extract.cpp", "", 2, Why::before, "load_recipe reads every step"},
    {"src/corpus/steps/language.cpp", "", 3, Why::before, "load_recipe reads every step"},
    {"src/corpus/steps/licences.cpp", "", 1, Why::before, "load_recipe reads every step"},
    {"src/corpus/steps/maths.cpp", "without the score", 1, Why::first, "documents that no step has scored"},
    {"src/corpus/steps/maths.cpp", "", 2, Why::before, "load_recipe reads every step"},
    {"src/corpus/steps/opt_out.cpp", "", 1, Why::before, "load_recipe reads every step with its lists"},
    {"src/corpus/steps/paragraphs.cpp", "", 1, Why::before, "load_recipe reads every step"},
    {"src/corpus/steps/pii.cpp", "", 2, Why::before, "load_recipe reads every step"},
    {"src/corpus/steps/qa.cpp", "found no question", 1, Why::first, "pages of a site whose markup has changed"},
    {"src/corpus/steps/qa.cpp", "", 2, Why::before, "load_recipe reads every step"},
    {"src/corpus/steps/quality.cpp", "", 6, Why::before, "load_recipe reads every step"},
    {"src/corpus/steps/words.cpp", "", 2, Why::before, "load_recipe reads every step"},
    {"src/corpus/classify/kept_share.cpp", "", 3, Why::own_file, "scores of a pass"},
    {"src/corpus/classify/train_classifier.cpp", "", 1, Why::command, "coppice data train-classifier"},
    {"src/corpus/classify/classifier_file.cpp", "", 8, Why::before, "load_recipe opens the classifier"},
    {"src/corpus/classify/fasttext_file.cpp", "", 1, Why::before, "load_recipe opens the classifier"},
    {"src/corpus/classify/mapped_file.cpp", "", 1, Why::before, "load_recipe opens the classifier"},
    {"src/corpus/classify/text_model.cpp", "", 3, Why::before, "load_recipe opens the classifier"},
    {"src/corpus/code/licence_folders.cpp", "", 1, Why::before, "load_recipe lists the folder"},
    {"src/corpus/decontaminate/benchmarks.cpp", "benchmarks: '{}'", 3, Why::before, "load_recipe lists the benchmarks"},
    {"src/corpus/decontaminate/benchmarks.cpp", "", 5, Why::first, "lines of benchmarks"},
    {"src/corpus/decontaminate/ngram_index.cpp", "", 2, Why::first, "items of benchmarks"},
    {"src/corpus/decontaminate/hits.cpp", "", 2, Why::own_file, "notes of a pass"},
    {"src/corpus/dedup/notes.cpp", "expected less than", 1, Why::first, "as many documents as the sources hold"},
    {"src/corpus/dedup/notes.cpp", "", 5, Why::before, "load_recipe looks for the signatures of an older run"},
    {"src/corpus/dedup/paragraphs.cpp", "", 1, Why::first, "as many documents as the sources hold"},
    {"src/corpus/dedup/record_file.cpp", "", 2, Why::own_file, "notes of a pass, or of an older run"},
    {"src/corpus/dedup/settle.cpp", "", 1, Why::first, "memory for as many documents as the sources hold"},
    {"src/corpus/maths/domains.cpp", "", 2, Why::before, "load_recipe reads every step with its lists"},
    {"src/corpus/maths/marks.cpp", "", 3, Why::before, "load_recipe reads every step with its lists"},
    {"src/corpus/maths/selectors.cpp", "", 1, Why::before, "load_recipe reads every step with its sites"},
    {"src/corpus/maths/sites.cpp", "", 5, Why::before, "load_recipe reads every step with its sites"},
    {"src/corpus/personal/user_pattern.cpp", "", 3, Why::before, "load_recipe reads every step with its patterns"},
    {"src/corpus/quality/url_lists.cpp", "", 1, Why::before, "load_recipe reads every step with its lists"},
    {"src/corpus/unsafe/word_list.cpp", "", 3, Why::before, "load_recipe reads every step with its lists"},
    {"src/corpus/long_qa/make_long_qa.cpp", "", 3, Why::command, "coppice data long-qa"},
    {"src/corpus/report/complete_corpus.cpp", "", 3, Why::command, "coppice data tune, sample, stats, diff"},
    {"src/corpus/report/corpus_text.cpp", "", 1, Why::command, "coppice data overlap"},
    {"src/corpus/report/tune.cpp", "", 3, Why::command, "coppice data tune"},
    {"src/corpus/report/value_file.cpp", "", 4, Why::command, "coppice data tune, sample"},
    // -- tasks --
    {"src/tasks/task_file.cpp", "", 10, Why::before, "check_evaluate reads every file"},
    {"src/tasks/task_requests.cpp", "", 10, Why::before, "check_evaluate reads every file"},
    {"src/tasks/known_functions.cpp", "", 5, Why::before, "check_evaluate reads every file"},
    {"src/tasks/encode_request.cpp", "", 3, Why::before,
     "check_evaluate; with a tokenizer that the run trains, as soon as there is one"},
    {"src/tasks/fewshot.cpp", "", 1, Why::command, "coppice eval"},
    {"src/tasks/pattern.cpp", "", 2, Why::command, "coppice eval"},
    {"src/tasks/subtasks.cpp", "", 1, Why::command, "coppice eval; a stage's form has no subtasks"},
    {"src/tasks/task_definition.cpp", "", 4, Why::command, "coppice eval; a stage's form is a constant"},
    {"src/tasks/task_yaml.cpp", "", 3, Why::command, "coppice eval"},
    {"src/tasks/template_lexer.cpp", "", 4, Why::command, "coppice eval; a stage's form is a constant"},
    {"src/tasks/template_calls.cpp", "", 1, Why::command, "coppice eval; a stage's form is a constant"},
    {"src/tasks/template_value.cpp", "", 3, Why::command, "coppice eval; a stage's form is a constant"},
    {"src/tasks/text_template.cpp", "", 3, Why::command, "coppice eval; a stage's form is a constant"},
    {"src/tasks/template_tags.cpp", "", 1, Why::command, "coppice generate"},
    {"src/tasks/chat_template.cpp", "", 4, Why::command, "coppice generate"},
    {"src/tasks/chat_prompt.cpp", "", 3, Why::command, "coppice generate"},
};

/// What stages run: their own files, and the libraries below them.
std::vector<fs::path> sources() {
  const fs::path root = COPPICE_SOURCE_DIR;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(root / "recipes/stages"))  // the data stage comes first
    if (entry.path().extension() == ".cpp" && entry.path().filename() != "prepare_data.cpp")
      files.push_back(entry.path());
  for (const char* folder : {"teacher", "student", "pruning", "src/optim", "src/model", "src/checkpoint", "src/data",
                             "src/text", "src/corpus", "src/tasks", "src/tokens", "src/tensors"})
    for (const auto& entry : fs::recursive_directory_iterator(root / folder))
      if (entry.path().extension() == ".cpp" || entry.path().extension() == ".h") files.push_back(entry.path());
  return files;
}

/// The statements that make a UserError, each up to its first semicolon; comments do not count.
std::vector<std::string> statements(const fs::path& file) {
  std::string text;
  std::istringstream lines(slurp(file));
  for (std::string line; std::getline(lines, line);)
    if (const size_t first = line.find_first_not_of(' ');
        first != std::string::npos && line.compare(first, 2, "//") != 0)
      text += line + "\n";
  std::vector<std::string> found;
  for (const char* maker : {"UserError::recipe(", "UserError::bad_file(", "UserError::folder_locked(", "UserError("})
    for (size_t at = text.find(maker); at != std::string::npos; at = text.find(maker, at + 1))
      found.push_back(text.substr(at, text.find(';', at) - at));
  return found;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("refusals: each UserError of what a stage runs says why it could not be thrown before the first stage") {
    std::vector<int> counts(std::size(kRows), 0);
    for (const fs::path& path : sources()) {
      const std::string file = path.lexically_relative(COPPICE_SOURCE_DIR).generic_string();
      for (const std::string& statement : statements(path)) {
        std::vector<size_t> named, rest;
        for (size_t i = 0; i < std::size(kRows); ++i) {
          if (file != kRows[i].file) continue;
          if (*kRows[i].part == '\0')
            rest.push_back(i);
          else if (statement.find(kRows[i].part) != std::string::npos)
            named.push_back(i);
        }
        const std::vector<size_t>& rows = named.empty() ? rest : named;
        INFO(file << ": " << statement);
        CHECK_MESSAGE(rows.size() == 1, "one row of kRows says why this could not be thrown before the first stage");
        if (rows.size() == 1) ++counts[rows.front()];
      }
    }
    for (size_t i = 0; i < std::size(kRows); ++i) {
      INFO(std::string(kRows[i].file) << " '" << std::string(kRows[i].part) << "' (" << std::string(kRows[i].reason)
                                      << "): is the reason still true of all of them?");
      CHECK(counts[i] == kRows[i].count);
      CHECK(std::string(kRows[i].reason).size() > 5);
    }
  }
}
