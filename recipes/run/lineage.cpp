#include "recipes/run/lineage.h"

#include "recipes/stages/label.h"
#include "recipes/stages/prune.h"
#include "recipes/stages/train.h"

#include <algorithm>
#include <iterator>
#include <set>

namespace coppice {
namespace {

/// What a recipe is about: its decisive cuts, or, without any, its distillation.
struct Subject {
  std::string cut;                 // of the student: "masks", a score, or empty
  std::vector<std::string> cuts;   // prune stages that made it: of that score; all where several scores stand side by
                                   // side; else those that keep all
  std::set<std::string> teachers;  // stages whose labels or outputs a train stage learns from
  bool narrows = false;            // some prune makes a layer narrower
  bool any_taught = false;         // a model after those cuts has a teacher
};

std::vector<std::string> teachers_of(const Recipe& recipe, const TrainStage& train) {
  std::vector<std::string> names = train.teachers;
  for (const std::string& labels : train.labels)
    if (const std::string& teacher = recipe.stage(labels).get<LabelStage>().teacher; !teacher.empty())
      names.push_back(teacher);
  return names;
}

bool same_shape(const ModelConfig& a, const ModelConfig& b) {
  return a.hidden_size == b.hidden_size && a.num_hidden_layers == b.num_hidden_layers &&
         a.intermediate_size == b.intermediate_size && a.num_attention_heads == b.num_attention_heads &&
         a.num_key_value_heads == b.num_key_value_heads;
}

/// Scores of prune stages that narrow, and of those the ones whose models are trained, and trained with a teacher.
struct CutScores {
  std::set<std::string> all, trained, taught;
};

CutScores cut_scores(const Recipe& recipe) {
  CutScores scores;
  for (const Stage& stage : recipe.stages) {
    if (stage.kind != "train" && stage.kind != "prune") continue;
    const Lineage lineage = lineage_of(recipe, stage.name);
    if (lineage.cut.empty()) continue;
    scores.all.insert(lineage.cut);
    if (lineage.training_tokens > 0) scores.trained.insert(lineage.cut);
    if (lineage.has_teacher) scores.taught.insert(lineage.cut);
  }
  return scores;
}

/// Learned masks where there are any; otherwise the one score whose models are taught, or trained, or there; empty when
/// several are equal in that.
std::string decisive_cut(const CutScores& scores) {
  if (scores.all.contains("masks")) return "masks";
  for (const std::set<std::string>* some : {&scores.taught, &scores.trained, &scores.all})
    if (!some->empty()) return some->size() == 1 ? *some->begin() : "";
  return "";
}

Subject subject_of(const Recipe& recipe) {
  const CutScores scores = cut_scores(recipe);
  Subject subject{.cut = decisive_cut(scores), .cuts = {}, .teachers = {}, .narrows = !scores.all.empty()};
  for (const Stage& stage : recipe.stages) {
    if (stage.kind == "prune") {
      const Lineage lineage = lineage_of(recipe, stage.name);
      if (subject.narrows ? !lineage.cut.empty() && (subject.cut.empty() || lineage.cut == subject.cut)
                          : lineage.kept_all)
        subject.cuts.push_back(stage.name);
    }
    if (const auto* train = stage.find<TrainStage>()) {
      const std::vector<std::string> teachers = teachers_of(recipe, *train);
      subject.teachers.insert(teachers.begin(), teachers.end());
    }
  }
  subject.any_taught = subject.cut.empty() ? !scores.taught.empty() : scores.taught.contains(subject.cut);
  return subject;
}

bool is_cut_from(const Recipe& recipe, const Subject& subject, const std::string& name) {
  return std::ranges::any_of(subject.cuts,
                             [&](const std::string& cut) { return cut != name && descends_from(recipe, cut, name); });
}

bool is_teacher(const Recipe& recipe, const Subject& subject, const std::string& name) {
  return std::ranges::any_of(subject.teachers,
                             [&](const std::string& teacher) { return descends_from(recipe, teacher, name); });
}

/// Fresh weights of a shape that a cut, or in a recipe without cuts a distilled model, has too.
bool has_students_shape(const Recipe& recipe, const Subject& subject, const std::string& name) {
  const ModelConfig config = recipe.model_after(name);
  return std::ranges::any_of(recipe.stages, [&](const Stage& other) {
    if (other.name == name || (other.kind != "prune" && other.kind != "train")) return false;
    const Lineage lineage = lineage_of(recipe, other.name);
    const bool is_students = subject.narrows ? other.kind == "prune" && !lineage.cut.empty() : lineage.has_teacher;
    return is_students && same_shape(recipe.model_after(other.name), config);
  });
}

void add_ancestors(const Recipe& recipe, const std::string& name, std::set<std::string>& names) {
  if (!names.insert(name).second) return;
  for (const std::string& input : recipe.stage(name).inputs()) add_ancestors(recipe, input, names);
}

/// The train or import stage that a model's weights begin in.
std::string root_of(const Recipe& recipe, std::string name) {
  for (std::string parent = start_of(recipe.stage(name)); !parent.empty(); parent = start_of(recipe.stage(name)))
    name = parent;
  return name;
}

/// The role of a model by the recipe alone; ancestors of the cut are all "source" here.
std::string role_of(const Recipe& recipe, const Subject& subject, const std::string& name) {
  const Stage& stage = recipe.stage(name);
  const Lineage lineage = lineage_of(recipe, name);
  if (stage.kind == "learn_masks") return "";
  if (!lineage.cut.empty()) {
    if (lineage.cut != subject.cut) return lineage.cut + (lineage.refitted ? " + refit" : "");
    if (lineage.training_tokens == 0) return "pruned";
    return lineage.has_teacher || !subject.any_taught ? "student" : "plain";
  }
  if (is_cut_from(recipe, subject, name)) return "source";
  if (lineage.kept_all) return "control";  // as wide as the source, and below: the source trained on
  if (const std::string parent = start_of(stage);
      !parent.empty() && is_cut_from(recipe, subject, root_of(recipe, parent)))
    return "control";
  if (!subject.narrows && lineage.has_teacher) return "student";
  if (is_teacher(recipe, subject, name)) return subject.cuts.empty() ? "source" : "teacher";
  if (!lineage.imported && has_students_shape(recipe, subject, name)) return "scratch";
  return lineage.has_teacher ? "distilled" : "";
}

/// Of another shape than [model.source]: an arm that trains the student from fresh weights, and cuts and teaches
/// nothing.
bool is_no_source(const Recipe& recipe, const Stage& stage) {
  const auto source = recipe.models.find("source");
  return source != recipe.models.end() && !same_shape(source->second, recipe.model_after(stage.name));
}

/// The students that the recipe is for: those on the way to an exported one, or behind it; all where none is exported.
std::vector<std::string> students_of(const Recipe& recipe, const Subject& subject) {
  std::vector<std::string> students, shipped;
  for (const Stage& stage : recipe.stages)
    if (stage.kind == "train" && role_of(recipe, subject, stage.name) == "student") students.push_back(stage.name);
  const auto is_shipped = [&](const std::string& student) {
    return std::ranges::any_of(recipe.stages, [&](const Stage& stage) {
      return stage.kind == "export" && (descends_from(recipe, stage.inputs().front(), student) ||
                                        descends_from(recipe, student, stage.inputs().front()));
    });
  };
  std::ranges::copy_if(students, std::back_inserter(shipped), is_shipped);
  return shipped.empty() ? students : shipped;
}

}  // namespace

Lineage lineage_of(const Recipe& recipe, const std::string& name) {
  const Stage& stage = recipe.stage(name);
  Lineage lineage;
  if (const std::string parent = start_of(stage); !parent.empty()) lineage = lineage_of(recipe, parent);
  if (stage.kind == "import") lineage.imported = true;
  if (const auto* train = stage.find<TrainStage>()) {
    lineage.training_tokens += static_cast<double>(train->training.tokens);
    lineage.has_teacher |= train->has_teacher();
  }
  if (const auto* prune = stage.find<PruneStage>()) {
    lineage.training_tokens = 0;
    lineage.has_teacher = false;
    const bool uneven =
        prune->scores != "masks" && prune->axis == "ffn" &&
        global_cut(recipe, prune->from) != nullptr;  // its wider layers are cut, whatever the recipe's widths say
    if (!uneven && same_shape(recipe.model_after(name), recipe.model_after(prune->from)))
      lineage.kept_all = true;
    else
      lineage.cut = prune->scores, lineage.refitted = prune->refit;
  }
  return lineage;
}

std::set<std::string> ancestors_of(const Recipe& recipe, const std::string& name) {
  std::set<std::string> names;
  add_ancestors(recipe, name, names);
  return names;
}

bool descends_from(const Recipe& recipe, const std::string& stage, const std::string& ancestor) {
  std::string at = stage;
  while (!at.empty() && at != ancestor) at = start_of(recipe.stage(at));
  return !at.empty();
}

std::map<std::string, std::string> roles_of(const Recipe& recipe, const std::vector<std::string>& scored,
                                            const std::string& agreement_with) {
  const Subject subject = subject_of(recipe);
  std::map<std::string, std::string> roles;
  for (const std::string& name : scored) roles[name] = role_of(recipe, subject, name);
  // Of several ancestors of one cut the nearest is what was cut; the others are shown, not judged.
  std::set<std::string> nearest;
  for (std::string at : subject.cuts) {
    while (!at.empty() && !(roles.contains(at) && roles.at(at) == "source")) at = start_of(recipe.stage(at));
    nearest.insert(at);
  }
  for (auto& [name, role] : roles)
    if (role == "source" && !subject.cuts.empty() && !nearest.contains(name)) role = "";
  const bool has_source = std::ranges::any_of(roles, [](const auto& row) { return row.second == "source"; });
  if (const auto found = roles.find(agreement_with); !has_source && found != roles.end() && found->second.empty())
    found->second = "source";
  return roles;
}

StagePurpose purpose_of(const Recipe& recipe, const Stage& stage) {
  if (stage.kind == "evaluate") return StagePurpose::comparison;  // it grows with what is held against the method
  if (stage.kind == "export") return StagePurpose::method;
  const Subject subject = subject_of(recipe);
  if (stage.kind == "train" || stage.kind == "import") {
    const std::string role = role_of(recipe, subject, stage.name);
    if (stage.kind == "import" || role == "source" || role == "teacher") return StagePurpose::source;
    if (role.empty())
      return subject.cuts.empty() && !is_no_source(recipe, stage) ? StagePurpose::source : StagePurpose::comparison;
  }
  if (stage.kind == "learn_masks") return StagePurpose::method;
  std::vector<std::string> targets = students_of(recipe, subject);
  if (targets.empty()) targets = subject.cuts;
  const bool leads = std::ranges::any_of(
      targets, [&](const std::string& target) { return ancestors_of(recipe, target).contains(stage.name); });
  return leads ? StagePurpose::method : StagePurpose::comparison;
}

}  // namespace coppice
