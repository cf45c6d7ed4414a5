#include "src/checkpoint/checkpoint_writer.h"

#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "src/base/log.h"
#include "src/checkpoint/checkpoint.h"

namespace coppice {

CheckpointWriter::CheckpointWriter(Options options) : options_(std::move(options)), snapshot_(options_.device) {}

CheckpointWriter::~CheckpointWriter() {
  try {
    wait();
  } catch (const std::exception& error) {
    log_warning(fmt::format("the checkpoint of step {} was not written: {}", writing_step_, error.what()));
  }
}

void CheckpointWriter::save(int64_t step, const TensorSource& source, Json facts) {
  wait();
  const double begin_s = monotonic_s();
  if (makes_copy(source)) {
    writing_step_ = step;
    write_ =
        std::async(std::launch::async, [this, step, copies = snapshot_.take(source),
                                        facts = std::move(facts)]() mutable { write(step, copies, std::move(facts)); });
  } else {
    write(step, source, std::move(facts));
    saved_step_ = step;
  }
  stall_s_ += monotonic_s() - begin_s;
}

bool CheckpointWriter::makes_copy(const TensorSource& source) {
  if (!options_.background) return false;
  uint64_t bytes = 0;
  for (const TensorSource::Entry& entry : source.entries) bytes += bytes_of(entry);
  options_.background = static_cast<double>(bytes) <= options_.memory_bytes && snapshot_.make_room(bytes);
  if (!options_.background)
    log_info(fmt::format("{}: the host has no {} free for a copy of the state, so training waits for its checkpoints",
                         options_.folder.string(), format_bytes(static_cast<double>(bytes))));
  return options_.background;
}

void CheckpointWriter::write(int64_t step, const TensorSource& source, Json facts) const {
  write_checkpoint(options_.folder, step, source, std::move(facts));
  prune_checkpoints(options_.folder, options_.keep_last);
}

void CheckpointWriter::check() {
  if (write_.valid() && write_.wait_for(std::chrono::seconds(0)) == std::future_status::ready) wait();
}

void CheckpointWriter::wait() {
  if (!write_.valid()) return;
  const double begin_s = monotonic_s();
  write_.wait();
  stall_s_ += monotonic_s() - begin_s;
  write_.get();
  saved_step_ = writing_step_;
}

double CheckpointWriter::take_stall_s() { return std::exchange(stall_s_, 0.0); }

}  // namespace coppice
