// Values of more documents than memory is to hold: rows of two passes, and the columns that come of them.
#include "src/corpus/run/value_rows.h"

#include <doctest/doctest.h>

#include <cmath>

#include "src/base/hdf5.h"
#include "tests/caught.h"
#include "tests/scratch_folder.h"

using namespace coppice;

namespace {

constexpr uint32_t kRows = 150'000;  // 8 MB and more than two chunks

float value_of(uint32_t record, int column) { return static_cast<float>(record) * 0.5F + static_cast<float>(column); }
/// The second pass sees every third document.
bool is_left(uint32_t record) { return record % 3 == 1; }

/// Of the first pass, ten columns, or the second one, one column.
void fill(ValueRows& rows, bool first) {
  std::vector<float> row(rows.columns().size());
  for (uint32_t record = 0; record < kRows; ++record) {
    if (!first && !is_left(record)) continue;
    for (size_t i = 0; i < row.size(); ++i) row[i] = value_of(record, first ? static_cast<int>(i) : 100);
    rows.add(record, record * uint64_t{7}, row);
  }
}

std::vector<std::string> ten_columns() {
  std::vector<std::string> names;
  for (int i = 0; i < 10; ++i) names.push_back("quality/rule" + std::to_string(i));
  return names;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("value rows: more than memory holds, of two passes, become columns") {
    const ScratchFolder folder("value-rows");
    ValueRows first(folder / "first", ten_columns()), second(folder / "second", {"dedup/near"});
    fill(first, true);
    CHECK(folder.names().size() == 1);  // the rows that are on their way, of the first alone
    first.save();
    CHECK(folder.names() == std::vector<std::string>{"first"});
    fill(second, false);
    std::vector<ValueRows> passes;
    passes.push_back(ValueRows::load(folder / "first", ten_columns()));
    CHECK(passes[0].size() == kRows);
    passes.push_back(std::move(second));
    write_values(folder / "values.h5", "0123", "crawl/a.warc", 5, passes);

    const Hdf5Reader reader(folder / "values.h5");
    CHECK(reader.string_attribute("/", "made_of") == "0123");
    CHECK(reader.string_attribute("/", "file") == "crawl/a.warc");
    std::vector<uint64_t> documents(kRows), ids(kRows);
    std::vector<float> third(kRows), near(kRows);
    reader.read_all("/document", Hdf5Type::u64, documents.data(), 8 * kRows);
    reader.read_all("/id", Hdf5Type::u64, ids.data(), 8 * kRows);
    reader.read_all("/quality/rule3", Hdf5Type::f32, third.data(), 4 * kRows);
    reader.read_all("/dedup/near", Hdf5Type::f32, near.data(), 4 * kRows);
    uint32_t wrong = 0;
    for (uint32_t record = 0; record < kRows; ++record) {
      wrong += documents[record] != (uint64_t{5} << 32 | record) || ids[record] != record * uint64_t{7};
      wrong += third[record] != value_of(record, 3);
      wrong += is_left(record) ? near[record] != value_of(record, 100) : !std::isnan(near[record]);
    }
    CHECK(wrong == 0);
  }

  TEST_CASE("value rows: without a row, given up, cut off") {
    const ScratchFolder folder("value-rows");
    {
      ValueRows none(folder / "none", {});
      none.save();
      std::vector<ValueRows> passes;
      passes.push_back(ValueRows::load(folder / "none", {}));
      write_values(folder / "none.h5", "0123", "a", 0, passes);
      CHECK(Hdf5Reader(folder / "none.h5").shape("/document").dims == std::vector<uint64_t>{0});
    }
    {
      ValueRows rows(folder / "rows", ten_columns());
      fill(rows, true);
      CHECK(folder.names().size() == 3);
    }
    CHECK(folder.names() == std::vector<std::string>{"none", "none.h5"});
    spill(folder / "cut", std::string(31, 'x'));
    const Caught refused = caught([&] { ValueRows::load(folder / "cut", {"a/b"}); });
    CHECK(refused.code == 3);
    CHECK(refused.says("has 31 bytes, expected whole rows of 1 values"));
  }
}
