// masks.h5: out and in again, layers of one width and of several; what does not hold is refused by name.
#include "pruning/mask_file.h"

#include "tests/pruning/tiny.h"  // before any CHECK

#include <filesystem>
#include <fstream>

#include "src/base/errors.h"
#include "src/base/hdf5.h"
#include "tests/scratch_folder.h"

using namespace coppice;
namespace fs = std::filesystem;

namespace {

MaskFile masks() {
  return {.scores_LF = at::sin(at::arange(24, at::kFloat)).view({2, 12}),
          .soft_LF = at::cos(at::arange(24, at::kFloat)).square().view({2, 12}),
          .source_sha256 = std::string(64, 'a'),
          .num_kept = 5,
          .epsilon = 0.125,
          .method = "coordinate_descent"};
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("mask file: out and in again, with one number of kept channels or one a layer") {
    const ScratchFolder folder;
    MaskFile written = masks();
    save_masks(folder.path / "masks.h5", written);
    MaskFile read = load_masks(folder.path / "masks.h5");
    CHECK(at::equal(read.scores_LF, written.scores_LF));
    CHECK(at::equal(read.soft_LF, written.soft_LF));
    CHECK(read.source_sha256 == written.source_sha256);
    CHECK(read.num_kept == 5);
    CHECK(read.epsilon == 0.125);
    CHECK(read.method == "coordinate_descent");
    CHECK_FALSE(read.global);
    CHECK(read.widths() == std::vector<int64_t>{5, 5});
    written.kept = {3, 7};
    written.global = true;
    save_masks(folder.path / "masks.h5", written);
    read = load_masks(folder.path / "masks.h5");
    CHECK(read.global);
    CHECK(read.widths() == std::vector<int64_t>{3, 7});
  }
}

TEST_SUITE("faults") {
  TEST_CASE("mask file: an axis without learned masks, more rows than it has choices and a global budget are refused") {
    const ScratchFolder folder;
    const fs::path path = folder.path / "masks.h5";
    const auto refused = [&](CutAxis axis, bool global, const char* part) {
      MaskFile written = masks();
      written.axis = axis;
      written.global = global;
      save_masks(path, written);
      CHECK_THROWS_WITH_AS(load_masks(path), doctest::Contains(part), UserError);
    };
    refused(CutAxis::hidden, false, "axis 'hidden', expected heads or layers");
    refused(CutAxis::layers, false, "/scores has 2 rows, and axis 'layers' is one choice: 1");
    refused(CutAxis::heads, true, "budget 'global' is of FFN channels alone, and axis is 'heads'");
    const std::vector<float> numbers(4);
    Hdf5Writer writer(path);  // channels under the version that names its axis
    for (const char* table : {"/scores", "/soft"})
      writer.write_chunked(table, Hdf5Type::f32, {2, 2}, 2, numbers.data());
    writer.set_attribute("/", "format", "coppice.masks");
    writer.set_attribute("/", "version", uint64_t{4});
    writer.set_attribute("/", "axis", "ffn");
    writer.close();
    CHECK_THROWS_WITH_AS(load_masks(path), doctest::Contains("axis 'ffn', expected heads or layers"), UserError);
  }

  TEST_CASE("mask file: cut short or flipped anywhere, it is refused and never misread") {
    const ScratchFolder folder;
    save_masks(folder.path / "masks.h5", masks());
    std::ifstream file(folder.path / "masks.h5", std::ios::binary);
    const std::string good{std::istreambuf_iterator<char>(file), {}};
    const auto load = [&](const std::string& bytes) {
      std::ofstream(folder.path / "bad.h5", std::ios::binary) << bytes;
      return load_masks(folder.path / "bad.h5");
    };
    for (const size_t length : {size_t{0}, size_t{7}, good.size() / 2, good.size() - 1})
      CHECK_THROWS_AS(load(good.substr(0, length)), UserError);
    size_t refused = 0;
    for (size_t at = 0; at < good.size(); at += 97) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ 0x40);
      try {
        const MaskFile read = load(bad);  // a byte that means nothing
        CHECK(at::equal(read.scores_LF, masks().scores_LF));
        CHECK(at::equal(read.soft_LF, masks().soft_LF));
        CHECK(read.widths() == std::vector<int64_t>{5, 5});
      } catch (const UserError& error) {
        CHECK(std::string(error.what()).find("bad.h5") != std::string::npos);
        ++refused;
      }
    }
    CHECK(refused > 0);
  }
}
