// train: fresh weights or an earlier stage's, next-token loss alone or with a teacher.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "recipes/language/stage.h"
#include "recipes/language/training_options.h"
#include "student/targets.h"

namespace coppice {

struct TrainStage {
  std::string model;  // name of a [model.*] table; empty with `from`
  std::string from;   // earlier stage; empty = fresh weights
  // Teachers: label stages, or earlier models that are read while this stage trains; both empty = true labels only.
  std::vector<std::string> labels, teachers;
  std::vector<double> teacher_shares;  // as many as teachers; they add up to 1
  int64_t top_k = 64;                  // of losses top_k, decoupled_top_k and hybrid with a live teacher
  int64_t draws = 16;                  // of losses sample and hybrid with a live teacher
  double proposal_temperature = 1;     // of loss sample with a live teacher
  KdOptions distillation;
  double rope_theta = 0;  // 0 = as the model has it
  TrainingOptions training;
  bool has_teacher() const { return !labels.empty() || !teachers.empty(); }
  /// Steps [first, last) in which the teacher counts, and is read.
  std::pair<int64_t, int64_t> distilling_steps() const;

  template <class Field>
  void visit_fields(Field& field) {
    field("model", model, Mark::place, "[model.<name>] for fresh weights");
    field("from", from, Mark::place, "earlier stage to go on from");
    field("labels", labels, Mark::decides,
          "label stage (or several) whose stored labels are the teacher's part of the loss");
    field("teacher", teachers, Mark::decides,
          "earlier model (or several) that is the teacher itself, read while this stage trains; instead of labels");
    field("teacher_shares", teacher_shares, Mark::decides,
          "of several teachers or label stages, relative to each other; empty = equal");
    field("top_k", top_k, Mark::decides,
          "ids a token that losses top_k, decoupled_top_k and hybrid ask a live teacher for");
    field("draws", draws, Mark::decides,
          "draws a token that losses sample and hybrid ask a live teacher for, 1 to 256");
    field("proposal_temperature", proposal_temperature, Mark::decides,
          "those of loss sample are made at kd_temperature times it, 1 to 10, and weighted; 1 = plain draws");
    distillation.visit_fields(field);
    field("rope_theta", rope_theta, Mark::decides,
          "RoPE base of this stage, under the model's scaling if any; 0 = as the model has it");
    training.visit_fields(field);
  }
};

Json run_train(StageContext& context);

}  // namespace coppice
