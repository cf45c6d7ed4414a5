// coppice compress: widths and tokens by hand, the request and its refusals, a whole run on a tiny model.
#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "pruning/cut_axis.h"
#include "recipes/compress/recipe_text.h"
#include "recipes/compress/schedule.h"
#include "recipes/compress/target.h"
#include "src/base/errors.h"
#include "src/model/parameters.h"
#include "tests/recipes/given_model.h"

using namespace coppice;
using namespace coppice::test;

namespace {

/// SmolLM2-135M: 54,888,768 parameters without FFN, 3 x 576 x 30 = 51,840 a channel.
ModelConfig smollm2() {
  return {.vocab_size = 49152,
          .hidden_size = 576,
          .num_hidden_layers = 30,
          .num_attention_heads = 9,
          .num_key_value_heads = 3,
          .head_dim = 64,
          .intermediate_size = std::vector<int64_t>(30, 1536),
          .qk_norm = false};
}

CompressRequest request_of(const Budget& budget, std::vector<std::string> formats = {"hf"}) {
  return {.model = "m", .text = "t", .budget = budget, .tokens = 1, .formats = std::move(formats), .quantization = {}};
}

std::string refusal(const std::function<void()>& body) {
  try {
    body();
  } catch (const UserError& error) {
    CHECK(error.code() == ExitCode::recipe);
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

const CompressSpeeds kSpeeds = {.mask_s = 0.008,
                                .label_s = 0.003,
                                .train_s = 0.0055,
                                .source_s = 0.0028,
                                .student_s = 0.002,
                                .source_score_s = 0.0034,
                                .student_score_s = 0.0026,
                                .mask_step_s = 0.1,
                                .train_step_s = 0.3,
                                .measured_in_s = 20};
const CompressWork kWork = {.source_bytes = 5.4e8, .student_bytes = 4.3e8, .text_s = 10, .text_tokens = 5e6};

CompressSpeeds uncalibrated(CompressSpeeds speeds) {
  speeds.source_score_s = speeds.source_s;
  speeds.student_score_s = speeds.student_s;
  return speeds;
}

std::set<std::string> files_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (const std::string name = fs::relative(entry.path(), folder).string(); !name.starts_with(".std"))
      names.insert(name);
  return names;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("compress: the widest FFN on the grid that a number of parameters allows, by hand") {
    const ModelConfig source = smollm2();
    REQUIRE(count_parameters(source) == 134'515'008);
    const struct {
      Budget budget;
      int64_t width, parameters;
    } rows[] = {{{Budget::Kind::share, 0.8}, 992, 106'314'048},
                {{Budget::Kind::share, 0.9}, 1248, 119'585'088},
                {{Budget::Kind::parameters, 108e6}, 1024, 107'972'928},
                {{Budget::Kind::parameters, 107'972'928}, 1024, 107'972'928},
                {{Budget::Kind::parameters, 107'972'927}, 992, 106'314'048},
                {{Budget::Kind::parameters, 64'842'048}, 192, 64'842'048},  // the least: an eighth
                {{Budget::Kind::channels, 1024}, 1024, 107'972'928}};
    for (const auto& row : rows) {
      CAPTURE(row.budget.value);
      const CompressTarget target = choose_target(source, request_of(row.budget), {});
      CHECK(target.width == row.width);
      CHECK(count_parameters(target.config) == row.parameters);
    }
    for (double share = 0.49; share < 1; share += 0.0137) {
      CAPTURE(share);
      const int64_t width = choose_target(source, request_of({Budget::Kind::share, share}), {}).width;
      CHECK(static_cast<double>(count_parameters(with_units(source, CutAxis::ffn, width))) <= share * 134'515'008);
      CHECK(static_cast<double>(count_parameters(with_units(source, CutAxis::ffn, width + 32))) > share * 134'515'008);
    }
  }

  TEST_CASE("compress: bytes choose the most precise element type that keeps half of the channels") {
    const ModelConfig source = smollm2();
    // matrices (54,853,632 + 51,840 F) x 34/32, 35,136 elements of norms x 4, 272 tensors x 256
    const double q8_1024 = 107'937'792 * 1.0625 + 140'544 + 69'632;
    CHECK(file_bytes(with_units(source, CutAxis::ffn, 1024), "q8_0", 0) == q8_1024);
    CHECK(file_bytes(with_units(source, CutAxis::ffn, 1024), "f16", 500) == 107'937'792 * 2.0 + 140'544 + 69'632 + 500);
    const auto choose = [&](double bytes, const FileBasis& basis, const std::string& quantization = "") {
      CompressRequest request = request_of({Budget::Kind::bytes, bytes}, {"gguf", "hf"});
      request.quantization = quantization;
      return choose_target(source, request, basis);
    };
    const CompressTarget exact = choose(q8_1024, {});
    CHECK(exact.width == 1024);
    CHECK(exact.quantization == "q8_0");
    CHECK(exact.bytes == q8_1024);
    REQUIRE(exact.considered.size() == 3);
    CHECK(exact.considered[0] == "f16 holds 32 of 1536 channels");
    CHECK(exact.considered[1] == "q8_0 holds 1024 of 1536 channels");
    CHECK(contains(exact.considered[2], "q4_0 holds all 1536 channels"));
    CHECK(choose(q8_1024 - 1, {}).width == 992);
    CHECK(choose(q8_1024 + 999, {.gguf_bytes = 1000}).width == 992);
    // q4_0: 28,311,552 x 34/32 of the vocabulary, (26,542,080 + 51,840 F) x 18/32
    const CompressTarget small = choose(70e6, {});  // q8_0: 192
    CHECK(small.quantization == "q4_0");
    CHECK(small.width == 832);
    CHECK(choose(80e6, {}).width == 1184);
    CHECK(choose(70e6, {}, "q8_0").width == 192);
    CHECK(choose(240e6, {}).quantization == "f16");
    CHECK(contains(refusal([&] { choose(100e6, {}); }), "nothing would be cut (q4_0 holds all 1536 channels"));
    CHECK(contains(refusal([&] { choose(30e6, {}); }), "leaves 0 of 1536 FFN channels, expected at least 192"));
    ModelConfig uneven = source;  // rows of 48: no blocks of 32
    uneven.hidden_size = 48;
    CHECK(std::isinf(file_bytes(uneven, "q8_0", 0)));
    CHECK(choose_target(uneven, request_of({Budget::Kind::channels, 1024}, {"gguf"}), {}).quantization == "f16");
    const CompressTarget folder = choose_target(source, request_of({Budget::Kind::bytes, 240e6}), {});
    CHECK(folder.dtype == "bf16");  // f32 would keep 96
    CHECK(folder.width == 1248);
  }

  TEST_CASE("compress: budgets that cut nothing, too much, or off the grid are refused with the numbers") {
    const auto refuse = [](const Budget& budget) {
      return refusal([&] { choose_target(smollm2(), request_of(budget), {}); });
    };
    CHECK(contains(refuse({Budget::Kind::share, 1}), "there is nothing to cut"));
    CHECK(contains(refuse({Budget::Kind::parameters, 135e6}), "the model has 134515008"));
    CHECK(contains(refuse({Budget::Kind::channels, 1536}), "there is nothing to cut"));
    CHECK(contains(refuse({Budget::Kind::channels, 1000}), "such as 992 or 1024"));
    CHECK(contains(refuse({Budget::Kind::channels, 160}), "such a student has 64842048 parameters of 134515008"));
    CHECK(contains(refuse({Budget::Kind::share, 0.4}), "leaves 0 of 1536"));
  }

  TEST_CASE("compress: a request is one line, however it was written") {
    CHECK(parse_parameters("0.8x").value == 0.8);
    CHECK(parse_parameters("108M").value == 108e6);
    CHECK(parse_parameters("1.08e8").value == 108e6);
    CHECK(parse_bytes("80MB").value == 80e6);
    CHECK(parse_bytes("1.5GiB").value == 1.5 * 1024 * 1024 * 1024);
    CHECK(parse_tokens("3e5") == 300'000);
    for (const char* text : {"", "x", "0x", "-0.8x", "0.8", "80MB", "1e400", "nanx", "0.8 x"})
      CHECK(refusal([&] { parse_parameters(text); }) != "");
    for (const char* text : {"", "MB", "80XB", "0", "-1MB"}) CHECK(refusal([&] { parse_bytes(text); }) != "");
    for (const char* text : {"", "1.5", "3e5x", "0"}) CHECK(refusal([&] { parse_tokens(text); }) != "");
    CompressRequest request{.model = "./models//smol/",
                            .text = "my text",
                            .budget = parse_parameters("0.80x"),
                            .hours = 1,
                            .formats = {"gguf", "hf"},
                            .quantization = "q8_0"};
    CHECK(
        request_line(request) ==
        "# coppice compress models/smol --text 'my text' --params 0.8x --hours 1 --format gguf,hf --quantization q8_0");
    request.budget = parse_bytes("80MB");
    request.tokens = 300'000;
    CHECK(contains(request_line(request), " --bytes 80000000 --tokens 300000 "));
    request.text = "a\nb";
    CHECK(refusal([&] { request_line(request); }) != "");
  }

  TEST_CASE("compress: the stages of a schedule take what they consist of, by hand") {
    const BatchShape shape = batch_shape(smollm2(), 8192);
    CHECK(shape.seq_len == 256);
    CHECK(shape.micro_batch_tokens == 512);
    CHECK(batch_shape(smollm2(), 128).seq_len == 128);
    CHECK(batch_shape(preset("afm-3b", ""), 4096).micro_batch_tokens == 256);
    const Schedule s = schedule_for(80'000, shape, kSpeeds);
    CHECK(s.batch_tokens == 1024);
    CHECK(s.tokens == 78 * 1024);
    CHECK(s.mask_tokens == 59 * 1024);
    CHECK(s.calibration_tokens == 8192);
    CHECK(s.eval_tokens == 1280);          // 60,416 / 48 in windows
    CHECK(s.scored_tokens == 16128);       // 16,000 in windows, at the nearest
    CHECK(s.mask_checkpoint_steps == 30);  // 483 s of masks: two
    CHECK(s.checkpoint_steps == 39);       // 440 s
    CHECK(s.mask_eval_steps == 15);
    const std::vector<StageSeconds> seconds = seconds_of_stages(s, kSpeeds, kWork);
    REQUIRE(seconds.size() == 9);
    CHECK(seconds[0].seconds == doctest::Approx(10.1));
    const double masks = 2 * 8192 * 0.0028 + (59 * 1024 + 2 * 512) * 0.008 + 59 * (0.1 + 0.004) +
                         3 * (4 + 1) * 1280 * 0.0028 + (2 + 3 * 1) * 5.4e8 / 2.5e8 + 0.1;
    CHECK(seconds[2].stage == "masks");
    CHECK(seconds[2].seconds == doctest::Approx(masks));
    CHECK(seconds[5].seconds == doctest::Approx(78 * 1024 * 0.003 + 5.4e8 / 2.5e8 + 0.1));
    // of four models the held-out windows are calibrated, the random tokens are not
    const std::vector<StageSeconds> plain = seconds_of_stages(s, uncalibrated(kSpeeds), kWork);
    CHECK(seconds[7].stage == "scores");
    CHECK(seconds[7].seconds - plain[7].seconds == doctest::Approx(16128 * (0.0006 + 3 * 0.0006)));
    // five turns, in each of which each of the four writes 32 ids
    CompressSpeeds slow_memory = kSpeeds;
    slow_memory.weight_byte_s *= 2;
    CHECK(seconds_of_stages(s, slow_memory, kWork)[7].seconds - seconds[7].seconds ==
          doctest::Approx(5 * 32 * (5.4e8 + 3 * 4.3e8) * kSpeeds.weight_byte_s));
    double sum = 0;
    for (const StageSeconds& stage : seconds) sum += stage.seconds;
    CHECK(total_seconds(seconds) == doctest::Approx(sum));
  }

  TEST_CASE("compress: by FLOPs alone a scored token costs its calibration as plan counts it") {
    ModelConfig student = smollm2();
    student.intermediate_size.assign(30, 1024);
    const BatchShape shape = batch_shape(smollm2(), 8192);
    const CompressSpeeds speeds = estimate_speeds(smollm2(), student, shape, 100);
    const double forward = 0.35 * 100e9, calibration = 49152 * (20 + 6 * 16) / forward;  // 16 temperatures
    CHECK(speeds.source_s == doctest::Approx(forward_flops_per_token(smollm2(), shape.seq_len) / forward));
    CHECK(speeds.source_score_s - speeds.source_s == doctest::Approx(calibration));
    CHECK(speeds.student_score_s - speeds.student_s == doctest::Approx(calibration));
  }

  TEST_CASE("compress: an hour is filled to 0.97 with what was measured; what is too short is refused with the least") {
    const BatchShape shape = batch_shape(smollm2(), 8192);
    const auto taken = [&](const Schedule& s, const CompressSpeeds& speeds) {
      return total_seconds(seconds_of_stages(s, speeds, kWork)) + speeds.measured_in_s;
    };
    int64_t before = 0;
    for (const double hours : {0.3, 1.0, 2.0, 8.0, 100.0}) {
      CAPTURE(hours);
      const Schedule s = schedule_for_hours(hours, shape, kSpeeds, kWork);
      CHECK(taken(s, kSpeeds) <= 0.97 * hours * 3600);
      CHECK(taken(s, kSpeeds) >= 0.92 * hours * 3600);
      CHECK(static_cast<double>(s.mask_tokens) == doctest::Approx(0.75 * static_cast<double>(s.tokens)).epsilon(0.02));
      CHECK(s.tokens > before);
      before = s.tokens;
    }
    CompressSpeeds slow = kSpeeds;
    for (double* seconds : {&slow.mask_s, &slow.label_s, &slow.train_s, &slow.source_s, &slow.student_s,
                            &slow.source_score_s, &slow.student_score_s})
      *seconds *= 3;
    CHECK(schedule_for_hours(2, shape, slow, kWork).tokens < schedule_for_hours(2, shape, kSpeeds, kWork).tokens / 2);
    const std::string message = refusal([&] { schedule_for_hours(0.05, shape, kSpeeds, kWork); });
    CAPTURE(message);
    REQUIRE(contains(message, "expected at least "));
    const double least = std::stod(message.substr(message.find("at least ") + 9));
    CHECK(schedule_for_hours(least, shape, kSpeeds, kWork).tokens >= 16 * 1024);
    CHECK(refusal([&] { schedule_for_hours(0.75 * least, shape, kSpeeds, kWork); }) != "");
  }

  TEST_CASE("compress: text that would be read too often is refused") {
    const Schedule s = schedule_for(80'000, batch_shape(smollm2(), 8192), kSpeeds);
    CHECK(check_epochs(s, 20'000) == doctest::Approx(78 * 1024 / 20'000.0));
    CHECK(contains(refusal([&] { check_epochs(s, 4'000); }), "read 20 times"));
  }
}

TEST_SUITE("recipe") {
  TEST_CASE("compress: a dry run and refusals leave nothing behind") {
    const GivenModel given("compress_dry");
    const fs::path& at = given.scratch.path;
    spill(at / "pictures/a.png", "no text");
    std::string long_text;  // so much that no machine reads it too often in the time asked for
    for (int i = 0; i < 10; ++i) long_text += slurp(at / "corpus/prose.jsonl");
    spill(at / "long.jsonl", long_text);
    const std::set<std::string> before = files_in(at);
    const auto compress = [&](std::vector<std::string> flags, const std::string& text = "corpus/prose.jsonl") {
      std::vector<std::string> words = {"compress", "hf", "--text", text, "--threads", "1"};
      words.insert(words.end(), flags.begin(), flags.end());
      const Outcome outcome = run(at, words);
      CHECK(files_in(at) == before);
      return outcome;
    };
    // 37,088 parameters of which 24,800 - 6,144 have no FFN channel; 0.9x = 33,379 allows 64 of 96
    const Outcome dry = compress({"--params", "0.9x", "--tokens", "2048", "--dry-run"});
    INFO(dry.err);
    REQUIRE(dry.code == 0);
    CHECK(contains(dry.out, "64 channels stay in every layer (66.7%), which leaves 30.9k parameters"));
    CHECK(contains(dry.out, "the recipe would be hf-64.toml, and its run would lie in runs/hf-64"));
    CHECK(contains(dry.out, "no promise"));
    CHECK(contains(dry.out, "learn_masks"));  // the table of plan
    const Outcome timed = compress({"--params", "0.9x", "--hours", "0.03", "--dry-run"}, "long.jsonl");
    INFO(timed.err);
    CHECK(timed.code == 0);
    CHECK(contains(timed.out, "tokens a second here"));

    const struct {
      std::vector<std::string> flags;
      const char* says;
    } refusals[] = {{{}, "got 0 budgets"},
                    {{"--params", "0.9x", "--intermediate-size", "64"}, "got 2 budgets"},
                    {{"--params", "1.1x"}, "there is nothing to cut"},
                    {{"--params", "0.5x"}, "expected at least 32"},
                    {{"--intermediate-size", "40"}, "such as 32 or 64"},
                    {{"--bytes", "80 MB"}, "expected a size such as 80MB"},
                    {{"--params", "0.9x", "--hours", "0.0001"}, "expected at least"},
                    {{"--params", "0.9x", "--tokens", "1e8"}, "bring more text"},
                    {{"--params", "0.9x", "--tokens", "2048", "--name", "a/b"}, "a name without '/'"},
                    {{"--params", "0.9x", "--quantization", "q8_0"}, "add it"},
                    {{"--params", "0.9x", "--tokens", "3e5", "--hours", "1"}, "excludes"}};
    for (const auto& row : refusals) {
      CAPTURE(row.says);
      const Outcome refused = compress(row.flags);
      CHECK(refused.code == 2);
      CHECK_MESSAGE(contains(refused.err, row.says), refused.err);
    }
    CHECK(contains(compress({"--params", "0.9x"}, "nowhere").err, "nowhere: no text there"));
    CHECK(contains(compress({"--params", "0.9x"}, "pictures").err, "none of its files is text"));
    CHECK(run(at, {"compress", "elsewhere", "--text", "corpus", "--params", "0.9x"}).code == 2);
  }

  TEST_CASE("compress: stopped while it measures it ends with 75 and leaves nothing behind") {
    const GivenModel given("compress_stopped");
    const fs::path& at = given.scratch.path;
    const std::set<std::string> before = files_in(at);
    Process process = start(
        at, {"compress", "hf", "--text", "corpus/prose.jsonl", "--params", "0.9x", "--hours", "1", "--threads", "1"});
    while (!process.poll() && !contains(slurp(process.err), "measuring how fast this machine is"))
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    process.send(SIGTERM);
    const Outcome& stopped = process.wait();
    INFO(stopped.err);
    CHECK(stopped.code == 75);
    CHECK(contains(stopped.err, "stopped while measuring how fast this machine is; run again"));
    CHECK(files_in(at) == before);
  }

  TEST_CASE("compress: a whole run; again it is complete; killed it goes on; another request is refused") {
    const GivenModel given("compress_run");
    const fs::path& at = given.scratch.path;
    const std::vector<std::string> words = {"compress", "hf",       "--text", "corpus/prose.jsonl", "--params",
                                            "0.9x",     "--tokens", "4096",   "--threads",          "1"};
    Process first = start(at, words);
    while (!first.poll() && !fs::exists(at / "runs/hf-64/masks/manifest.json"))
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (!first.ended) first.send(SIGKILL);
    first.wait();
    REQUIRE(fs::exists(at / "hf-64.toml"));
    const std::string recipe = slurp(at / "hf-64.toml");
    CHECK(
        recipe.starts_with("# coppice compress hf --text corpus/prose.jsonl --params 0.9x --tokens 4096 --format hf "
                           "--threads 1\n"));

    const Outcome whole = run(at, words);
    INFO(whole.err);
    REQUIRE(whole.code == 0);
    CHECK(contains(whole.out, "hf-64.toml is there: the run goes on with it"));
    CHECK(contains(whole.err, "stage 'masks': already complete"));
    CHECK(contains(whole.out, "verified: runs/hf-64/release/hf, "));
    CHECK(contains(whole.out, "37.1k -> 30.9k parameters"));
    CHECK(slurp(at / "hf-64.toml") == recipe);
    const auto config = nlohmann::json::parse(slurp(at / "runs/hf-64/release/hf/config.json"));
    CHECK(config["intermediate_size"] == 64);
    const auto report = nlohmann::json::parse(slurp(at / "runs/hf-64/report.json"));
    CHECK(report["models"].size() == 4);
    const auto core = nlohmann::json::parse(slurp(at / "runs/hf-64/core/manifest.json"));
    CHECK(core["tokens"] == 4096);

    const Outcome again = run(at, words);
    CHECK(again.code == 0);
    CHECK(contains(again.out, "already complete"));
    CHECK(contains(again.out, "verified: runs/hf-64/release/hf, "));

    std::vector<std::string> other = words;
    other[7] = "8192";
    const Outcome refused = run(at, other);
    CHECK(refused.code == 2);
    CHECK(contains(refused.err, "hf-64.toml answers another request (coppice compress hf "));
    fs::remove(at / "hf-64.toml");
    CHECK(contains(run(at, words).err, "runs/hf-64 holds a run already"));
  }
}
