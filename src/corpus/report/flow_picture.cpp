#include "src/corpus/report/flow_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "src/base/log.h"
#include "src/corpus/report/text_table.h"

namespace coppice {
namespace {

constexpr double kWidth = 1040, kBand = 400, kLeft = 20;  // pixels; kBand: of the most text there is at once
constexpr double kBranchEnd = kLeft + kBand + 70, kText = kBranchEnd + 14;
constexpr double kRow = 54, kGap = 22;  // of a step, and what it has more than its branch
constexpr double kTop = 16, kLead = 26;

/// Text of one colour in bytes.
struct Lane {
  std::string name, css;
  double bytes = 0, out = 0;
  Amount came, left;
};

struct Colours {
  std::vector<Lane> lanes;
  std::map<std::string, size_t> lane_of;
};

Colours colours_of(const CompleteCorpus& corpus) {
  std::vector<size_t> order(corpus.sources.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, std::ranges::greater(), [&](size_t i) { return corpus.sources[i].in.text_bytes; });
  const bool fold = order.size() > kNumFills;
  Colours colours;
  for (size_t i = 0; i < order.size(); ++i) {
    const ToldSource& source = corpus.sources[order[i]];
    if (!fold || i < kNumFills) {
      colours.lanes.push_back({.name = source.options.name, .css = fmt::format("f{}", i)});
    } else if (i == kNumFills) {
      colours.lanes.push_back({.name = fmt::format("{} others", order.size() - kNumFills), .css = "fother"});
    }
    Lane& lane = colours.lanes.back();
    colours.lane_of[source.options.name] = colours.lanes.size() - 1;
    lane.bytes += static_cast<double>(source.in.text_bytes);
    lane.came += source.in;
    lane.left += source.out;
  }
  return colours;
}

std::string size_text(double bytes) { return format_bytes(bytes); }

/// What a step does to each lane.
struct Flow {
  std::vector<double> before, gone, after;  // bytes of each lane
};

std::vector<Flow> flows_of(const CompleteCorpus& corpus, const Colours& colours) {
  std::vector<Flow> flows;
  std::map<std::string, double> bytes;
  for (const ToldSource& source : corpus.sources)
    bytes[source.options.name] = static_cast<double>(source.in.text_bytes);
  const size_t lanes = colours.lanes.size();
  for (const ToldStep& step : corpus.steps) {
    Flow& flow =
        flows.emplace_back(Flow{std::vector<double>(lanes), std::vector<double>(lanes), std::vector<double>(lanes)});
    for (auto& [source, now] : bytes) {
      const size_t lane = colours.lane_of.at(source);
      const auto of = step.by_source.find(source);
      const double kept = of == step.by_source.end() ? now : static_cast<double>(of->second.kept.text_bytes);
      flow.before[lane] += now;
      flow.after[lane] += kept;
      now = kept;
    }
    for (size_t lane = 0; lane < lanes; ++lane) flow.gone[lane] = std::max(0.0, flow.before[lane] - flow.after[lane]);
  }
  return flows;
}

double sum(const std::vector<double>& numbers) { return std::accumulate(numbers.begin(), numbers.end(), 0.0); }

class Picture {
 public:
  Picture(const CompleteCorpus& corpus, Colours colours, std::vector<Flow> flows)
      : corpus_(corpus), colours_(std::move(colours)), flows_(std::move(flows)), svg_(kWidth, height()) {}

  Svg draw() {
    std::vector<double> begin;
    for (const Lane& lane : colours_.lanes) begin.push_back(lane.bytes);
    double y = kTop;
    total("came in", corpus_.in, y);
    y += 14;
    legend();
    straight(begin, y, legend_bottom());
    y = legend_bottom();
    for (size_t i = 0; i < flows_.size(); ++i) {
      row(corpus_.steps[i], flows_[i], y);
      y += row_height(flows_[i]);
    }
    const std::vector<double>& end = flows_.empty() ? begin : flows_.back().after;
    straight(end, y, y + kLead);
    total("left", corpus_.out, y + kLead + 20);
    return svg_;
  }

 private:
  double scale() const {
    double most = 1;
    for (const Lane& lane : colours_.lanes) most += lane.bytes;
    for (const Flow& flow : flows_) most = std::max(most, sum(flow.after));
    return kBand / most;
  }
  double row_height(const Flow& flow) const { return std::max(kRow, scale() * sum(flow.gone) + kGap); }
  double legend_bottom() const { return kTop + 14 + 18.0 * static_cast<double>(colours_.lanes.size()) + 26; }
  double height() const {
    double y = legend_bottom();
    for (const Flow& flow : flows_) y += row_height(flow);
    return y + kLead + 34;
  }

  void total(const char* what, const Amount& amount, double y) {
    svg_.text(kLeft, y,
              fmt::format("{}: {}, {} documents", what, size_text(static_cast<double>(amount.text_bytes)),
                          format_count(static_cast<double>(amount.documents))),
              "strong");
  }

  void straight(const std::vector<double>& lanes, double top, double bottom) {
    double x = kLeft;
    for (size_t i = 0; i < lanes.size(); ++i) {
      const double width = scale() * lanes[i];
      if (width > 0 && bottom > top) svg_.rect(x, top - 0.5, width, bottom - top + 0.5, colours_.lanes[i].css);
      x += width;
    }
  }

  void legend() {
    double y = kTop + 26;
    for (const Lane& lane : colours_.lanes) {
      svg_.rect(kText, y - 9, 10, 10, lane.css, 2);
      svg_.text(kText + 18, y, fit_text(lane.name, 11, 190), "strong");
      svg_.text(kText + 212, y,
                fmt::format("{} of {}, {} of {} documents", size_text(static_cast<double>(lane.left.text_bytes)),
                            size_text(static_cast<double>(lane.came.text_bytes)),
                            format_count(static_cast<double>(lane.left.documents)),
                            format_count(static_cast<double>(lane.came.documents))));
      y += 18;
    }
  }

  /// What stays moves together, above what goes, which bends to the right, its rightmost lane on top.
  void row(const ToldStep& step, const Flow& flow, double top) {
    const double k = scale(), bottom = top + row_height(flow), middle = (top + bottom) / 2;
    double above = kLeft, below = kLeft, end = middle + k * sum(flow.gone) / 2;
    std::vector<std::string> stays(flow.before.size());
    for (size_t i = 0; i < flow.before.size(); ++i) {
      const double before = k * flow.before[i], gone = k * flow.gone[i], after = k * flow.after[i];
      const double split = above + before - gone;
      if (after > 0)  // half a pixel into the row above, against seams
        stays[i] = fmt::format(
            "M{0:.1f} {4:.1f}C{0:.1f} {5:.1f} {2:.1f} {5:.1f} {2:.1f} {6:.1f}L{3:.1f} {6:.1f}C{3:.1f} {5:.1f} {1:.1f} "
            "{5:.1f} {1:.1f} {4:.1f}Z",
            above, split, below, below + after, top - 0.5, middle, bottom);
      if (gone > 0)
        svg_.path(
            fmt::format("M{0:.1f} {2:.1f}C{0:.1f} {3:.1f} {0:.1f} {3:.1f} {5:.1f} {3:.1f}L{5:.1f} {4:.1f}C{1:.1f} "
                        "{4:.1f} {1:.1f} {4:.1f} {1:.1f} {2:.1f}Z",
                        split, above + before, top, end, end - gone, kBranchEnd),
            colours_.lanes[i].css + " gone");
      above += before;
      below += after;
      end -= gone;
    }
    for (size_t i = 0; i < stays.size(); ++i)
      if (!stays[i].empty()) svg_.path(stays[i], colours_.lanes[i].css);
    label(step, flow, middle);
  }

  void label(const ToldStep& step, const Flow& flow, double y) {
    svg_.text(kText, y - 3, fit_text(step.name, 11, kWidth - kText - 10), "strong");
    const double gone = sum(flow.gone), before = sum(flow.before), grown = sum(flow.after) - before;
    const uint64_t documents = step.seen.documents - step.kept.documents;
    std::string text;
    if (step.seen.documents == 0)
      text = "saw no document";
    else if (gone == 0 && documents == 0 && grown <= 0)
      text = "removed nothing";
    else {
      if (gone > 0) text = fmt::format("\u2212{} ({:.1f}%), ", size_text(gone), 100 * gone / before);
      text += fmt::format("{} of {} documents", format_count(static_cast<double>(documents)),
                          format_count(static_cast<double>(step.seen.documents)));
      if (grown > 0) text += fmt::format("; +{}", size_text(grown));
    }
    svg_.text(kText, y + 12, text);
  }

  const CompleteCorpus& corpus_;
  Colours colours_;
  std::vector<Flow> flows_;
  Svg svg_;
};

}  // namespace

Svg flow_picture(const CompleteCorpus& corpus) {
  Colours colours = colours_of(corpus);
  std::vector<Flow> flows = flows_of(corpus, colours);
  return Picture(corpus, std::move(colours), std::move(flows)).draw();
}

}  // namespace coppice
