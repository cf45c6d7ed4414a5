// The drawings of a report, each kWidth pixels wide and as tall as its content; an empty optional where the run has
// nothing to draw.
#pragma once

#include <optional>

#include "recipes/report/report.h"
#include "src/base/svg.h"

namespace coppice {

inline constexpr double kChartWidth = 960;

/// One panel a training stage, side by side on one scale of loss: training and held-out.
std::optional<Svg> loss_chart(const Report& report);
/// Learning rate and gradient norm of the same stages.
std::optional<Svg> rate_chart(const Report& report);
/// Held-out loss by tokens trained since the cut, or since fresh weights: one line a chain of stages, the source's last
/// loss as a reference.
std::optional<Svg> after_cut_chart(const Report& report);
/// The mask over the steps: kept share, sharpness and churn per layer, what a cut would cost, overlap with other
/// choices.
std::optional<Svg> mask_chart(const Report& report);
/// Bars a model: parameters, loss, accuracy, agreement.
std::optional<Svg> models_chart(const Report& report);

/// The colour family of a model's role: fsource, fmethod, fcut, fcompare, fother.
const char* role_colour(const ReportModel& model);

}  // namespace coppice
