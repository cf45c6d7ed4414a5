// Folders of named tensors: bit for bit there and back, and every kind of damage refused before a parser sees it.
#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "src/base/failpoint.h"
#include "src/base/files.h"
#include "src/base/hdf5.h"
#include "src/base/json.h"
#include "src/checkpoint/checkpoint.h"
#include "tests/checkpoint/tiny.h"

namespace fs = std::filesystem;
using namespace coppice;

namespace {

constexpr const char* kFormat = "coppice.test";

/// All bit patterns count: NaN, infinities, a subnormal, -0.
std::vector<NamedTensor> odd_tensors() {
  at::Tensor special = at::zeros({2, 3});
  const uint32_t patterns[] = {0x7fc12345, 0x7f800000, 0xff800000, 0x00000001, 0x80000000, 0x3f800001};
  std::memcpy(special.mutable_data_ptr(), patterns, sizeof(patterns));
  return {{"/model/a.weight", special},
          {"/model/b.weight", at::arange(5000, at::kFloat)},
          {"/optim/v/b.weight", at::full({7, 1}, -2.5F)},
          {"/mask/empty", at::zeros({0, 4})}};
}

std::vector<NamedTensor> blanks_like(const std::vector<NamedTensor>& tensors) {
  std::vector<NamedTensor> blanks;
  for (const NamedTensor& tensor : tensors) blanks.push_back({tensor.name, at::full_like(tensor.value, 77.0F)});
  return blanks;
}

bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() &&
         (a.numel() == 0 || std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0);
}

std::string message_of(const std::function<void()>& act, ExitCode code = ExitCode::bad_file) {
  try {
    act();
  } catch (const Error& error) {
    CHECK(error.code() == code);
    return error.what();
  }
  FAIL_CHECK("nothing was thrown");
  return "";
}

/// Three units of a model with a slot, and a tensor of the stage: 40, 80 and 8 bytes a unit with its slot.
std::vector<TensorSource::Entry> three_units() {
  return {{"/model/embed", {5, 1}, 0},     {"/model/layers.0.a", {2, 4}, 1}, {"/model/layers.0.b", {2}, 1},
          {"/model/norm", {1}, 2},         {"/optim/v/embed", {5, 1}, 0},    {"/optim/v/layers.0.a", {2, 4}, 1},
          {"/optim/v/layers.0.b", {2}, 1}, {"/optim/v/norm", {1}, 2},        {"/mask/scores", {3}, kStageUnit}};
}

/// Value i of entry e: 100 (e + 1) + i.
at::Tensor value_of(const std::vector<TensorSource::Entry>& entries, size_t entry) {
  int64_t elements = 1;
  for (const int64_t size : entries[entry].shape) elements *= size;
  return (at::arange(elements, at::kFloat) + 100.0 * static_cast<double>(entry + 1)).reshape(entries[entry].shape);
}

TensorSource source_of(const std::vector<TensorSource::Entry>& entries) {
  return {.entries = entries, .value = [entries](size_t entry) { return value_of(entries, entry); }};
}

std::vector<NamedTensor> blanks_of(const std::vector<TensorSource::Entry>& entries) {
  std::vector<NamedTensor> blanks;
  for (const TensorSource::Entry& entry : entries) blanks.push_back({entry.name, at::zeros(entry.shape)});
  return blanks;
}

using Parts = std::vector<std::vector<size_t>>;

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE(
      "tensor_folder: parts are consecutive units with their slots; the stage's own stands alone beside several") {
    CHECK((divide_into_parts(three_units()) == Parts{{0, 1, 2, 3, 4, 5, 6, 7, 8}}));
    CHECK((divide_into_parts(three_units(), 1) == Parts{{0, 4}, {1, 2, 5, 6}, {3, 7}, {8}}));
    CHECK((divide_into_parts(three_units(), 40) == Parts{{0, 4}, {1, 2, 5, 6}, {3, 7}, {8}}));
    CHECK((divide_into_parts(three_units(), 41) == Parts{{0, 1, 2, 4, 5, 6}, {3, 7}, {8}}));
    CHECK((divide_into_parts(three_units(), 120) == Parts{{0, 1, 2, 4, 5, 6}, {3, 7}, {8}}));
    CHECK((divide_into_parts(three_units(), 121) == Parts{{0, 1, 2, 3, 4, 5, 6, 7, 8}}));
    CHECK((divide_into_parts({}) == Parts{{}}));
  }

  TEST_CASE("tensor_folder: several parts are found through the manifest, each tensor whole in one of them") {
    const ScratchFolder scratch;
    write_tensor_folder(scratch.path / "m", kFormat, source_of(three_units()), {{"run", "r"}}, 41);
    const Json manifest = check_tensor_folder(scratch.path / "m", kFormat);
    REQUIRE(manifest["files"].size() == 3);
    const std::vector<std::vector<std::string>> expected = {
        {"/model/embed", "/model/layers.0.a", "/model/layers.0.b", "/optim/v/embed", "/optim/v/layers.0.a",
         "/optim/v/layers.0.b"},
        {"/model/norm", "/optim/v/norm"},
        {"/mask/scores"}};
    for (size_t part = 0; part < 3; ++part) {
      const std::string name = fmt::format("part-{:05}.h5", part);
      CHECK(manifest["files"][part]["name"] == name);
      CHECK(Hdf5Reader(scratch.path / "m" / name).datasets() == expected[part]);
    }
    const std::vector<NamedTensor> into = blanks_of(three_units());
    CHECK(read_tensor_folder(scratch.path / "m", kFormat, into)["run"] == "r");
    for (size_t i = 0; i < into.size(); ++i) CHECK(same_bytes(into[i].value, value_of(three_units(), i)));
    CHECK(message_of([&] {
            read_tensor_folder(scratch.path / "m", kFormat, {into.begin(), into.end() - 1});
          }).find("part-00002.h5: /mask/scores: not expected") != std::string::npos);
  }

  TEST_CASE("tensor_folder: tensors are pulled one at a time, part after part, and let go") {
    const ScratchFolder scratch;
    int alive = 0, most = 0;
    std::vector<size_t> order;
    TensorSource source{.entries = three_units()};
    source.value = [&](size_t entry) {
      order.push_back(entry);
      most = std::max(most, ++alive);
      const at::Tensor value = value_of(source.entries, entry);
      return at::from_blob(
          value.mutable_data_ptr(), value.sizes(), [&alive, value](void*) { --alive; }, at::kFloat);
    };
    write_tensor_folder(scratch.path / "m", kFormat, source, Json::object(), 1);
    CHECK(order == std::vector<size_t>{0, 4, 1, 2, 5, 6, 3, 7, 8});
    CHECK(most == 1);
    CHECK(alive == 0);
    const std::vector<NamedTensor> into = blanks_of(three_units());
    read_tensor_folder(scratch.path / "m", kFormat, into);
    CHECK(same_bytes(into[5].value, value_of(three_units(), 5)));
  }

  TEST_CASE("tensor_folder: rows of a tensor are read without the others") {
    const ScratchFolder scratch;
    const std::vector<TensorSource::Entry> entries = {{"/model/a", {6, 2, 2}, 0}, {"/model/b", {5}, 1}};
    write_tensor_folder(scratch.path / "m", kFormat, source_of(entries), Json::object(), 1);
    const TensorFolder folder(scratch.path / "m", kFormat);
    CHECK(folder.names() == std::vector<std::string>{"/model/a", "/model/b"});
    CHECK(folder.shape("/model/a") == std::vector<int64_t>{6, 2, 2});
    CHECK(folder.part_of("/model/b").filename() == "part-00001.h5");
    at::Tensor rows = at::zeros({2, 2, 2});
    folder.read("/model/a", 3, rows);
    CHECK(rows.flatten()[0].item<float>() == 112);  // element 12
    CHECK(same_bytes(rows, value_of(entries, 0).narrow(0, 3, 2).contiguous()));
    at::Tensor last = at::zeros({1});
    folder.read("/model/b", 4, last);
    CHECK(last.item<float>() == 204);
    folder.read("/model/b", 5, at::zeros({0}));
    const auto refused = [&](const char* name, int64_t row, const at::Tensor& into) {
      return message_of([&] { folder.read(name, row, into); });
    };
    CHECK(refused("/model/b", 4, at::zeros({2})).find("/model/b: got f32 (5), expected (2) from row 4 on") !=
          std::string::npos);
    refused("/model/b", -1, at::zeros({2}));
    refused("/model/a", 0, at::zeros({2, 2}));
    refused("/model/a", 0, at::zeros({2, 2, 3}));
    CHECK(refused("/model/c", 0, at::zeros({1})).find("/model/c: missing") != std::string::npos);
  }

  TEST_CASE("tensor_folder: a folder as older programs left it, with its slices' places, is read") {
    const ScratchFolder scratch;
    const fs::path folder = scratch.path / "m";
    fs::create_directory(folder);
    {
      Hdf5Writer file(folder / "part-00000.h5");
      const std::vector<float> values = {1, 2, 3};
      file.write_chunked("/optim/v/a", Hdf5Type::f32, {3}, 3, values.data());
      file.set_attribute("/optim/v/a", "shape", std::vector<uint64_t>{3});
      file.set_attribute("/optim/v/a", "begin", uint64_t{0});
      file.close();
    }
    const Json files = Json::array({{{"name", "part-00000.h5"},
                                     {"bytes", fs::file_size(folder / "part-00000.h5")},
                                     {"sha256", sha256_file(folder / "part-00000.h5")}}});
    spill(folder / "manifest.json", seal({{"format", kFormat}, {"version", 1}, {"files", files}}));
    const std::vector<NamedTensor> into = {{"/optim/v/a", at::zeros({3})}};
    read_tensor_folder(folder, kFormat, into);
    CHECK(into[0].value[2].item<float>() == 3);
  }

  TEST_CASE("tensor_folder: what is written is read bit for bit") {
    const ScratchFolder scratch;
    const fs::path folder = scratch.path / "model";
    const std::vector<NamedTensor> tensors = odd_tensors();
    write_tensor_folder(folder, kFormat, tensors, {{"run", "r"}, {"tokens", 12}});
    const std::vector<NamedTensor> read = blanks_like(tensors);
    const Json manifest = read_tensor_folder(folder, kFormat, read);
    for (size_t i = 0; i < tensors.size(); ++i)
      CHECK_MESSAGE(same_bytes(read[i].value, tensors[i].value), tensors[i].name);
    CHECK(manifest["run"] == "r");
    CHECK(manifest["tokens"] == 12);
    CHECK(manifest["version"] == 1);
    CHECK(manifest["files"].size() == 1);
    CHECK(manifest["files"][0]["sha256"] == sha256_file(folder / "part-00000.h5"));
    CHECK(std::distance(fs::directory_iterator(scratch.path), fs::directory_iterator()) == 1);  // no temporary left
  }

  TEST_CASE("tensor_folder: equal content, equal bytes") {
    const ScratchFolder scratch;
    for (const char* name : {"one", "two"})
      write_tensor_folder(scratch.path / name, kFormat, odd_tensors(), {{"step", 3}});
    for (const char* file : {"part-00000.h5", "manifest.json"})
      CHECK(slurp(scratch.path / "one" / file) == slurp(scratch.path / "two" / file));
  }

  TEST_CASE("tensor_folder: the part says its kind and the type of each dataset") {
    const ScratchFolder scratch;
    write_tensor_folder(scratch.path / "m", kFormat, odd_tensors(), Json::object());
    const Hdf5Reader reader(scratch.path / "m" / "part-00000.h5");
    CHECK(reader.string_attribute("/", "format") == kFormat);
    CHECK(reader.unsigned_attribute("/", "version") == 1);
    CHECK(reader.string_attribute("/model/a.weight", "dtype") == "f32");
  }

  TEST_CASE("tensor_folder: names, shapes and left-over tensors are named with expected and found") {
    const ScratchFolder scratch;
    const fs::path folder = scratch.path / "m";
    write_tensor_folder(folder, kFormat, {{"/model/a", at::zeros({4, 8})}, {"/model/b", at::zeros({3})}},
                        Json::object());
    const auto read_into = [&](const std::vector<NamedTensor>& into) {
      return message_of([&] { read_tensor_folder(folder, kFormat, into); });
    };
    const std::string shape = read_into({{"/model/a", at::zeros({4, 9})}, {"/model/b", at::zeros({3})}});
    CHECK(shape.find("/model/a: got f32 (4, 8), expected f32 (4, 9)") != std::string::npos);
    CHECK(read_into({{"/model/a", at::zeros({4, 8})}, {"/model/c", at::zeros({3})}})
              .find("/model/c: missing, expected (3)") != std::string::npos);
    CHECK(read_into({{"/model/a", at::zeros({4, 8})}}).find("/model/b: not expected") != std::string::npos);
  }

  TEST_CASE("tensor_folder: another kind or a newer version is refused with both") {
    const ScratchFolder scratch;
    write_tensor_folder(scratch.path / "m", kFormat, odd_tensors(), Json::object());
    const std::string text = message_of([&] { check_tensor_folder(scratch.path / "m", "coppice.other"); });
    CHECK(text.find("coppice.test") != std::string::npos);
    CHECK(text.find("coppice.other") != std::string::npos);
    Json manifest = read_json(scratch.path / "m" / "manifest.json");
    manifest.erase("sha256");
    manifest["version"] = 2;
    spill(scratch.path / "m" / "manifest.json", seal(manifest));
    message_of([&] { check_tensor_folder(scratch.path / "m", kFormat); });
  }

  TEST_CASE("tensor_folder: an existing folder of the name is replaced whole") {
    const ScratchFolder scratch;
    const fs::path folder = scratch.path / "step-00000005";
    write_tensor_folder(folder, kFormat, {{"/model/a", at::zeros({100})}}, {{"note", "old"}});
    spill(folder / "stray", "left by something else");
    write_tensor_folder(folder, kFormat, {{"/model/a", at::ones({100})}}, {{"note", "new"}});
    const std::vector<NamedTensor> read = {{"/model/a", at::zeros({100})}};
    CHECK(read_tensor_folder(folder, kFormat, read)["note"] == "new");
    CHECK(read[0].value.sum().item<float>() == 100.0F);
    CHECK(std::distance(fs::directory_iterator(scratch.path), fs::directory_iterator()) == 1);
  }
}

TEST_SUITE("faults") {
  TEST_CASE("tensor_folder: a damaged, missing or foreign part is named, whichever it is") {
    const ScratchFolder scratch;
    const fs::path folder = scratch.path / "m", other = scratch.path / "other";
    write_tensor_folder(folder, kFormat, source_of(three_units()), {{"step", 1}}, 1);
    TensorSource changed = source_of(three_units());
    changed.value = [](size_t entry) { return value_of(three_units(), entry) + 1; };
    write_tensor_folder(other, kFormat, changed, {{"step", 2}}, 1);
    const std::vector<NamedTensor> into = blanks_of(three_units());
    for (size_t part = 0; part < 4; ++part) {
      const std::string name = fmt::format("part-{:05}.h5", part);
      const std::string bytes = slurp(folder / name);
      const auto refused = [&] { return message_of([&] { read_tensor_folder(folder, kFormat, into); }); };
      flip_byte(folder / name, bytes.size() / 2, 4);
      CHECK(refused().find(name + ": SHA-256") != std::string::npos);
      fs::remove(folder / name);
      CHECK(refused().find(name + ": missing") != std::string::npos);
      fs::copy_file(other / name, folder / name);  // whole in itself, and of the same names and shapes
      CHECK(refused().find(name + ": SHA-256") != std::string::npos);
      spill(folder / name, bytes);
    }
    fs::copy_file(other / "manifest.json", folder / "manifest.json", fs::copy_options::overwrite_existing);
    CHECK(message_of([&] { read_tensor_folder(folder, kFormat, into); }).find("part-00000.h5: SHA-256") !=
          std::string::npos);
    for (const NamedTensor& tensor : into) CHECK(tensor.value.abs().sum().item<float>() == 0);  // nothing was filled
  }

  TEST_CASE("tensor_folder: parts under other names, or with a tensor twice, are refused though they are sealed") {
    const ScratchFolder scratch;
    const fs::path folder = scratch.path / "m";
    const auto sealed = [&](const std::vector<std::string>& names) {
      Json files = Json::array();
      for (const std::string& name : names)
        files.push_back(
            {{"name", name}, {"bytes", fs::file_size(folder / name)}, {"sha256", sha256_file(folder / name)}});
      spill(folder / "manifest.json", seal({{"format", kFormat}, {"version", 1}, {"files", files}}));
      return message_of([&] { const TensorFolder opened(folder, kFormat); });
    };
    write_tensor_folder(folder, kFormat, {{"/model/a", at::zeros({3})}}, Json::object());
    fs::copy_file(folder / "part-00000.h5", folder / "part-00001.h5");
    CHECK(sealed({"part-00000.h5", "part-00001.h5"}).find("/model/a stands in part-00000.h5 as well") !=
          std::string::npos);
    CHECK(sealed({"part-00001.h5", "part-00000.h5"}).find("part 0 of 2 is 'part-00001.h5', expected part-00000.h5") !=
          std::string::npos);
    fs::remove(folder / "part-00000.h5");
    fs::remove(folder / "part-00001.h5");
    CHECK(sealed({}).find("0 parts") != std::string::npos);
  }

  TEST_CASE("tensor_folder: missing, additional, truncated, extended or linked files are refused") {
    const ScratchFolder scratch;
    const fs::path folder = scratch.path / "m", part = folder / "part-00000.h5";
    write_tensor_folder(folder, kFormat, odd_tensors(), Json::object());
    const std::string bytes = slurp(part);
    const auto refused = [&] { return message_of([&] { check_tensor_folder(folder, kFormat); }); };
    fs::remove(part);
    CHECK(refused().find("missing") != std::string::npos);
    fs::create_symlink("/etc/passwd", part);  // links are followed nowhere
    CHECK(refused().find("part-00000.h5") != std::string::npos);
    fs::remove(part);
    for (const size_t size : {size_t{0}, size_t{1}, bytes.size() / 2, bytes.size() - 1}) {
      spill(part, bytes.substr(0, size));
      CHECK(refused().find(fmt::format("{} bytes, expected {}", size, bytes.size())) != std::string::npos);
    }
    spill(part, bytes + "x");
    refused();
    spill(part, bytes);
    check_tensor_folder(folder, kFormat);
    spill(folder / "extra.h5", "x");
    CHECK(refused().find("extra.h5: not listed") != std::string::npos);
    fs::remove(folder / "extra.h5");
    fs::remove(folder / "manifest.json");
    CHECK(refused().find("manifest.json") != std::string::npos);
  }

  TEST_CASE("tensor_folder: names in a manifest never leave the folder") {
    const ScratchFolder scratch;
    const fs::path folder = scratch.path / "m";
    write_tensor_folder(folder, kFormat, odd_tensors(), Json::object());
    spill(scratch.path / "canary", "untouched");
    for (const char* name : {"../canary", "/etc/passwd", "..", "sub/part.h5", "", "manifest.json", "a\nb"}) {
      const Json files = Json::array({{{"name", name}, {"bytes", 9}, {"sha256", sha256_hex("untouched")}}});
      spill(folder / "manifest.json", seal({{"format", kFormat}, {"version", 1}, {"files", files}}));
      message_of([&] { check_tensor_folder(folder, kFormat); });
    }
    CHECK(slurp(scratch.path / "canary") == "untouched");
  }

  TEST_CASE("tensor_folder: a link under the final name is replaced, what it points at is not touched") {
    const ScratchFolder scratch;
    fs::create_directory(scratch.path / "elsewhere");
    spill(scratch.path / "elsewhere" / "canary", "untouched");
    fs::create_directory_symlink(scratch.path / "elsewhere", scratch.path / "m");
    write_tensor_folder(scratch.path / "m", kFormat, odd_tensors(), Json::object());
    CHECK_FALSE(fs::is_symlink(scratch.path / "m"));
    check_tensor_folder(scratch.path / "m", kFormat);
    CHECK(slurp(scratch.path / "elsewhere" / "canary") == "untouched");
    CHECK(std::distance(fs::directory_iterator(scratch.path / "elsewhere"), fs::directory_iterator()) == 1);
  }

  TEST_CASE("tensor_folder: paths may be relative or end with a slash") {
    const ScratchFolder scratch;
    const fs::path before = fs::current_path();
    fs::current_path(scratch.path);
    for (const char* name : {"a", "b/", "c/d/", "a", "b/"})
      write_tensor_folder(name, kFormat, odd_tensors(), Json::object());
    for (const char* name : {"a", "b", "c/d"}) check_tensor_folder(name, kFormat);
    CHECK(std::distance(fs::directory_iterator("."), fs::directory_iterator()) == 3);
    fs::current_path(before);
  }

  TEST_CASE("tensor_folder: a failed fsync or write is answered by writing everything again, once") {
    const ScratchFolder scratch;
    const SilentStderr silent;
    for (const char* point : {"io.fsync=error@1", "io.write=error@3", "io.rename=error@1", "io.close=error@2"}) {
      const fs::path folder = scratch.path / "m";
      fs::remove_all(folder);
      set_failpoints(point);
      write_tensor_folder(folder, kFormat, odd_tensors(), Json::object());
      set_failpoints("");
      check_tensor_folder(folder, kFormat);
    }
    const fs::path never = scratch.path / "never";
    set_failpoints("io.fsync=error@1,io.fsync=error@2");
    message_of([&] { write_tensor_folder(never, kFormat, odd_tensors(), Json::object()); }, ExitCode::io);
    set_failpoints("");
    CHECK_FALSE(fs::exists(never));
    for (const auto& entry : fs::directory_iterator(scratch.path))
      CHECK_FALSE(entry.path().filename().string().starts_with(".tmp-"));
  }

  TEST_CASE("tensor_folder: a full disk ends with exit 4 and leaves the older folder whole") {
    const ScratchFolder scratch;
    const fs::path older = scratch.path / "step-00000001", newer = scratch.path / "step-00000002";
    const std::vector<NamedTensor> tensors = {{"/model/a", at::ones({200'000})}};
    write_tensor_folder(older, kFormat, tensors, Json::object());
    for (const rlim_t limit : {rlim_t{0}, rlim_t{1000}, rlim_t{100'000}, rlim_t{700'000}}) {
      const int code = run_in_child([&] {
        std::signal(SIGXFSZ, SIG_IGN);  // as the program does: the limit shows as EFBIG
        const rlimit rule{limit, limit};
        ::setrlimit(RLIMIT_FSIZE, &rule);
        const SilentStderr silent;
        write_tensor_folder(newer, kFormat, tensors, Json::object());
      });
      CHECK(code == static_cast<int>(ExitCode::io));
      CHECK_FALSE(fs::exists(newer));
      check_tensor_folder(older, kFormat);
    }
    write_tensor_folder(newer, kFormat, tensors, Json::object());
  }
}
