#include "src/corpus/classify/train_classifier.h"

#include <fmt/format.h>

#include <algorithm>
#include <barrier>
#include <thread>
#include <tuple>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/base/random.h"
#include "src/base/signals.h"
#include "src/corpus/classify/ftrl.h"

namespace coppice {
namespace {

constexpr size_t kBlockDocuments = 64;    // whose gradients are one step
constexpr size_t kBatchDocuments = 1024;  // read, then counted by all threads

struct Example {
  uint64_t hash = 0;  // of its id: what is kept, and the order before it is permuted
  uint64_t text = 0;  // hash of its text
  bool positive = false, held_out = false;
  std::vector<Feature> features;  // by bucket
  double norm = 0;

  auto key() const { return std::tuple(hash, text, positive); }
};

/// Calls work(thread) in `threads` threads, this one among them.
template <class Work>
void in_threads(int threads, const Work& work) {
  std::vector<std::jthread> others;
  for (int thread = 1; thread < threads; ++thread) others.emplace_back([&work, thread] { work(thread); });
  work(0);
}

/// The documents of one kind with the smallest hashes, as features.
class Examples {
 public:
  Examples(const ClassifierTraining& training, bool positive) : training_(training), positive_(positive) {
    for (int i = 0; i < training.threads; ++i) counters_.emplace_back(training.buckets);
  }

  void add(Document&& document) {
    const uint64_t hash = sample_hash(document.id);
    if (kept_.size() == most() && hash > kept_.front().hash) return;
    batch_.push_back({.hash = hash,
                      .text = text_hash(document.text),
                      .positive = positive_,
                      .held_out = is_heldout(document.id, training_.heldout_share)});
    texts_.push_back(std::move(document.text));
    batch_bytes_ += texts_.back().size();
    if (batch_.size() == kBatchDocuments || batch_bytes_ > kMaxDocumentBytes) take_batch();
  }

  /// By hash.
  std::vector<Example> finish() {
    take_batch();
    std::ranges::sort(kept_, {}, &Example::key);
    return std::move(kept_);
  }

 private:
  size_t most() const { return static_cast<size_t>(training_.max_documents); }

  void take_batch() {
    in_threads(training_.threads, [&](int thread) {
      for (size_t i = static_cast<size_t>(thread); i < batch_.size(); i += static_cast<size_t>(training_.threads)) {
        const std::span<const Feature> features = counters_[static_cast<size_t>(thread)].count(texts_[i]);
        batch_[i].features.assign(features.begin(), features.end());
        std::ranges::sort(batch_[i].features, {}, [](const Feature& feature) { return uint32_t{feature.bucket}; });
        batch_[i].norm = feature_norm(batch_[i].features);
      }
    });
    for (Example& example : batch_) {
      if (example.features.empty()) continue;
      kept_.push_back(std::move(example));
      std::ranges::push_heap(kept_, {}, &Example::key);  // the largest in front
      if (kept_.size() <= most()) continue;
      std::ranges::pop_heap(kept_, {}, &Example::key);
      kept_.pop_back();
    }
    batch_.clear();
    texts_.clear();
    batch_bytes_ = 0;
  }

  const ClassifierTraining& training_;
  bool positive_;
  std::vector<FeatureCounter> counters_;
  std::vector<Example> batch_, kept_;
  std::vector<std::string> texts_;
  uint64_t batch_bytes_ = 0;
};

std::vector<Example> read_examples(const ClassifierTraining& training, bool positive) {
  Examples examples(training, positive);
  uint64_t documents = 0;
  Progress progress(positive ? "positive" : "negative", 0, "document");
  for (const std::filesystem::path& path : positive ? training.positive : training.negative) {
    const CorpusReport report = for_each_document(
        path,
        [&](Document&& document) {
          if (stop_requested()) throw Stopped("stopped while reading documents; nothing is written");
          examples.add(std::move(document));
          progress.update(++documents, {});
        },
        training.reading);
    log_corpus_report(path, report, training.reading);
  }
  std::vector<Example> kept = examples.finish();
  progress.finish(fmt::format("{} documents, {} with words are used", documents, kept.size()));
  return kept;
}

/// Of hashes of ids and texts, in their order: the same for every way in which the documents lie in files.
std::string digest_of(const std::vector<Example>& examples) {
  Sha256 sha;
  for (const Example& example : examples)
    for (const uint64_t number : {example.hash, example.text})
      sha.update({reinterpret_cast<const char*>(&number), sizeof number});
  return sha.hex();
}

double score_of(const Example& example, std::span<const float> weights) {
  double sum = 0;
  for (const Feature& feature : example.features) sum += double{weights[feature.bucket]} * feature_value(feature.count);
  return sum / example.norm;
}

/// All passes over the examples that are trained on. In a block each document's error is found by one thread; then each
/// weight belongs to one thread, which adds up the block's gradients in the order of its documents: whatever the number
/// of threads, the same sums. An intercept takes up how often positives are; Platt's offset stands for it afterwards.
class Trainer {
 public:
  Trainer(const ClassifierTraining& training, std::vector<const Example*> examples)
      : training_(training),
        examples_(std::move(examples)),
        model_(training.buckets, {}),
        intercept_(1, {}),
        gradients_(training.buckets),
        errors_(kBlockDocuments),
        progress_("train", examples_.size() * static_cast<uint64_t>(training.passes), "document") {}

  std::vector<float> run() {
    std::barrier together(training_.threads);
    in_threads(training_.threads, [&](int thread) {
      std::vector<uint32_t> touched;
      for (uint64_t pass = 0; pass < static_cast<uint64_t>(training_.passes); ++pass) {
        for (size_t begin = 0; begin < examples_.size(); begin += kBlockDocuments) {
          if (thread == 0) choose_block(pass, begin);
          together.arrive_and_wait();
          if (stopped_) return;
          find_errors(static_cast<size_t>(thread));
          together.arrive_and_wait();
          if (thread == 0) step_intercept();
          step_weights(static_cast<size_t>(thread), touched);
          together.arrive_and_wait();
        }
      }
    });
    if (stopped_) throw Stopped("stopped while training; nothing is written");
    progress_.finish(fmt::format("{} passes over {} documents", training_.passes, examples_.size()));
    return {model_.weights().begin(), model_.weights().end()};
  }

 private:
  void choose_block(uint64_t pass, size_t begin) {
    block_.clear();
    for (size_t i = begin; i < std::min(begin + kBlockDocuments, examples_.size()); ++i)
      block_.push_back(examples_[permute(i, examples_.size(), training_.seed, Purpose::data_order, pass)]);
    stopped_ = stop_requested();
    progress_.update(pass * examples_.size() + begin, {});
  }

  void find_errors(size_t thread) {
    for (size_t i = thread; i < block_.size(); i += static_cast<size_t>(training_.threads)) {
      const Platt logistic{1, intercept_.weights()[0]};
      const double error = logistic(score_of(*block_[i], model_.weights())) - (block_[i]->positive ? 1 : 0);
      errors_[i] = error / block_[i]->norm;
    }
  }

  void step_intercept() {
    double sum = 0;
    for (size_t i = 0; i < block_.size(); ++i) sum += errors_[i] * block_[i]->norm;
    intercept_.step(0, static_cast<float>(sum));
  }

  /// Of the buckets [first, last) of a thread.
  void step_weights(size_t thread, std::vector<uint32_t>& touched) {
    const auto threads = static_cast<size_t>(training_.threads);
    const uint64_t first = training_.buckets * thread / threads, last = training_.buckets * (thread + 1) / threads;
    touched.clear();
    for (size_t i = 0; i < block_.size(); ++i) {
      const std::vector<Feature>& features = block_[i]->features;
      auto at = std::ranges::lower_bound(features, first, {}, [](const Feature& feature) { return feature.bucket; });
      for (; at != features.end() && at->bucket < last; ++at) {
        if (gradients_[at->bucket] == 0) touched.push_back(at->bucket);
        gradients_[at->bucket] += static_cast<float>(errors_[i] * feature_value(at->count));
      }
    }
    for (const uint32_t bucket : touched) {
      if (gradients_[bucket] != 0) model_.step(bucket, gradients_[bucket]);  // touched twice: already done
      gradients_[bucket] = 0;
    }
  }

  const ClassifierTraining& training_;
  std::vector<const Example*> examples_;
  FtrlProximal model_, intercept_;
  std::vector<float> gradients_;  // of a block
  std::vector<double> errors_;    // of a block: probability - truth, over the norm
  std::vector<const Example*> block_;
  bool stopped_ = false;
  Progress progress_;
};

}  // namespace

Classifier train_classifier(const ClassifierTraining& training) {
  std::vector<Example> positive = read_examples(training, true), negative = read_examples(training, false);
  Classifier classifier{.seed = training.seed,
                        .passes = static_cast<uint64_t>(training.passes),
                        .positive_sha256 = digest_of(positive),
                        .negative_sha256 = digest_of(negative)};
  std::vector<const Example*> trained, held_out;
  for (const std::vector<Example>* examples : {&positive, &negative}) {
    const size_t held_before = held_out.size(), trained_before = trained.size();
    for (const Example& example : *examples) (example.held_out ? held_out : trained).push_back(&example);
    if (held_out.size() == held_before || trained.size() == trained_before)
      throw UserError::recipe(
          examples == &positive ? "--positive" : "--negative",
          fmt::format(
              "{} documents with words, of which {} are trained on and {} held out; expected some of both: give "
              "more documents",
              examples->size(), trained.size() - trained_before, held_out.size() - held_before));
  }
  classifier.weights = Trainer(training, std::move(trained)).run();
  std::vector<HeldOutScore> scores;
  for (const Example* example : held_out) scores.push_back({score_of(*example, classifier.weights), example->positive});
  classifier.platt = fit_platt(scores);
  classifier.held_out = held_out_report(scores, classifier.platt);
  return classifier;
}

}  // namespace coppice
