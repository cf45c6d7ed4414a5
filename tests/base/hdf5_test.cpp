// HDF5 without being hurt: round trips, rules of the written files, refusals of foreign features, full disks and
// flipped bytes.
#include "src/base/hdf5.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <hdf5.h>
#include <signal.h>
#include <sys/resource.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <thread>

#include "src/base/files.h"
#include "src/base/random.h"
#include "tests/caught.h"
#include "tests/child_process.h"
#include "tests/scratch_folder.h"

using namespace coppice;

namespace {

namespace fs = std::filesystem;

template <class Number>
std::vector<Number> counted(size_t count, uint64_t step = 7) {
  std::vector<Number> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<Number>(i * step % 65'521);
  return values;
}

/// A file made with the C API alone, as a stranger could make it.
void foreign(const fs::path& path, const std::function<void(hid_t)>& fill) {
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  REQUIRE(file >= 0);
  fill(file);
  REQUIRE(H5Fclose(file) >= 0);
}

hid_t make_dataset(hid_t file, const char* name, hid_t type, std::vector<hsize_t> dims, hid_t creation = H5P_DEFAULT) {
  const hid_t space = H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr);
  const hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
  REQUIRE(dataset >= 0);
  H5Sclose(space);
  H5Dclose(dataset);
  return dataset;
}

/// The refusal of dataset `name` in a foreign file.
Caught refusal(const fs::path& path, const std::string& name) {
  return caught([&] { Hdf5Reader(path).shape(name); });
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("hdf5: chunked datasets and attributes come back, row ranges and widening conversions too") {
    const ScratchFolder folder;
    const fs::path path = folder / "shard.h5";
    const auto tokens = counted<uint16_t>(200'001);
    const auto table = counted<uint32_t>(3 * 5000);
    const std::vector<uint64_t> ends = {5, 77, 200'001};
    {
      Hdf5Writer writer(path);
      writer.write_chunked("tokens", Hdf5Type::u16, {tokens.size()}, 65'536, tokens.data());
      writer.write_chunked("/deep/group/ids", Hdf5Type::u32, {5000, 3}, 2048, table.data());
      writer.write_chunked("/doc_end", Hdf5Type::u64, {3}, 65'536, ends.data());
      writer.write_chunked("/none", Hdf5Type::u16, {0}, 65'536, nullptr);
      writer.write_chunked("/no_rows", Hdf5Type::f16, {0, 64}, 2048, nullptr);
      writer.set_attribute("/", "format", "coppice.tokens");
      writer.set_attribute("/", "version", 1);
      writer.set_attribute("/", "version", 2);  // replaces
      writer.set_attribute("/", "empty", "");
      writer.set_attribute("/deep/group/ids", "dtype", "u32 é");
      writer.close();
    }
    const Hdf5Reader reader(path);
    CHECK(reader.datasets() == std::vector<std::string>{"/deep/group/ids", "/doc_end", "/no_rows", "/none", "/tokens"});
    CHECK(reader.has("/tokens"));
    CHECK(reader.has("tokens"));
    CHECK(reader.has("/deep/group/ids"));
    CHECK_FALSE(reader.has("/deep/other/ids"));
    CHECK_FALSE(reader.has("/x"));
    CHECK(reader.shape("/tokens").type == Hdf5Type::u16);
    CHECK(reader.shape("/tokens").dims == std::vector<uint64_t>{200'001});
    CHECK(reader.shape("/deep/group/ids").dims == std::vector<uint64_t>{5000, 3});
    CHECK(reader.shape("/no_rows").type == Hdf5Type::f16);

    std::vector<uint16_t> whole(tokens.size());
    reader.read_all("/tokens", Hdf5Type::u16, whole.data(), whole.size() * 2);
    CHECK(whole == tokens);
    std::vector<int64_t> window(70'000);  // across a chunk border
    reader.read("/tokens", Hdf5Type::i64, 60'000, window.size(), window.data());
    for (size_t i = 0; i < window.size(); ++i) REQUIRE(window[i] == tokens[60'000 + i]);
    std::vector<uint32_t> rows(2 * 3);
    reader.read("/deep/group/ids", Hdf5Type::u32, 2047, 2, rows.data());
    CHECK(rows == std::vector<uint32_t>(table.begin() + 2047 * 3, table.begin() + 2049 * 3));
    reader.read("/tokens", Hdf5Type::u16, tokens.size(), 0, nullptr);
    reader.read_all("/none", Hdf5Type::u16, nullptr, 0);
    reader.read_all("/no_rows", Hdf5Type::f16, nullptr, 0);

    CHECK(reader.string_attribute("/", "format") == "coppice.tokens");
    CHECK(reader.unsigned_attribute("/", "version") == 2);
    CHECK(reader.string_attribute("/", "empty") == "");
    CHECK(reader.string_attribute("/deep/group/ids", "dtype") == "u32 é");

    uint16_t small[4];
    for (const auto& error : {caught([&] { reader.read("/tokens", Hdf5Type::u16, 200'000, 2, small); }),
                              caught([&] { reader.read("/tokens", Hdf5Type::u16, ~0ull, 2, small); }),
                              caught([&] { reader.read_all("/doc_end", Hdf5Type::u64, small, 8); }),
                              caught([&] { reader.shape("/absent"); }), caught([&] { reader.shape("/deep"); }),
                              caught([&] { reader.read("/doc_end", Hdf5Type::u16, 0, 1, small); }),
                              caught([&] { reader.read("/tokens", Hdf5Type::f32, 0, 1, small); }),
                              caught([&] { reader.string_attribute("/", "version"); }),
                              caught([&] { reader.unsigned_attribute("/", "format"); }),
                              caught([&] { reader.unsigned_attribute("/", "absent"); })}) {
      CHECK(error.code == 3);
      CHECK(error.says("shard.h5"));
    }
  }

  TEST_CASE("hdf5: halves are IEEE 754 binary16 and widen to float") {
    const ScratchFolder folder;
    const std::vector<uint16_t> bits = {0x0000, 0x3c00, 0xc000, 0x3555, 0x7bff, 0x0001, 0xfc00};
    {
      Hdf5Writer writer(folder / "h.h5");
      writer.write_chunked("/x", Hdf5Type::f16, {bits.size()}, 100, bits.data());
      writer.close();
    }
    const Hdf5Reader reader(folder / "h.h5");
    std::vector<float> values(bits.size());
    reader.read_all("/x", Hdf5Type::f32, values.data(), values.size() * 4);
    CHECK(values == std::vector<float>{0.0f, 1.0f, -2.0f, 0.333251953125f, 65504.0f, 0x1p-24f, -INFINITY});
    std::vector<uint16_t> again(bits.size());
    reader.read_all("/x", Hdf5Type::f16, again.data(), again.size() * 2);
    CHECK(again == bits);
  }

  TEST_CASE("hdf5: skeleton method, bytes written at the reserved offsets are the datasets") {
    const ScratchFolder folder;
    const fs::path path = folder / "part.h5";
    const auto weight = counted<float>(64 * 96), bias = counted<float>(96, 3);
    uint64_t weight_at = 0, bias_at = 0;
    {
      Hdf5Writer writer(path);
      writer.reserve_contiguous("/model/layers.0.up.weight", Hdf5Type::f32, {64, 96});
      writer.reserve_contiguous("/model/norm.weight", Hdf5Type::f32, {96});
      writer.reserve_contiguous("/model/empty", Hdf5Type::f32, {0, 96});
      writer.set_attribute("/model/norm.weight", "dtype", "f32");
      weight_at = writer.contiguous_offset("/model/layers.0.up.weight");
      bias_at = writer.contiguous_offset("/model/norm.weight");
      CHECK(writer.contiguous_offset("/model/empty") == 0);
      writer.close();
    }
    CHECK(weight_at % 4096 == 0);
    CHECK(fs::file_size(path) >= weight_at + weight.size() * 4);
    {
      OutputFile file(path, OutputFile::Mode::existing);
      file.allocate(fs::file_size(path));
      file.write_at(weight_at, std::as_bytes(std::span(weight)));
      file.write_at(bias_at, std::as_bytes(std::span(bias)));
      file.sync();
      file.close();
    }
    const Hdf5Reader reader(path);
    std::vector<float> got(weight.size());
    reader.read_all("/model/layers.0.up.weight", Hdf5Type::f32, got.data(), got.size() * 4);
    CHECK(got == weight);
    got.resize(bias.size());
    reader.read_all("/model/norm.weight", Hdf5Type::f32, got.data(), got.size() * 4);
    CHECK(got == bias);
    CHECK(reader.shape("/model/empty").dims == std::vector<uint64_t>{0, 96});
  }

  TEST_CASE(
      "hdf5: files are V18 (superblock 2, no consistency flag), fletcher32 on chunked data, equal runs write equal "
      "bytes") {
    const ScratchFolder folder;
    const auto tokens = counted<uint16_t>(100'000);
    for (const char* name : {"a.h5", "b.h5"}) {
      Hdf5Writer writer(folder / name);
      writer.write_chunked("/tokens", Hdf5Type::u16, {tokens.size()}, 65'536, tokens.data());
      writer.set_attribute("/", "format", "x");
      writer.close();
    }
    const std::string bytes = slurp(folder / "a.h5");
    CHECK(bytes.substr(0, 9) == std::string("\x89HDF\r\n\x1a\n\x02", 9));
    CHECK(bytes == slurp(folder / "b.h5"));
    const hid_t file = H5Fopen((folder / "a.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
    const hid_t dataset = H5Dopen2(file, "/tokens", H5P_DEFAULT);
    const hid_t creation = H5Dget_create_plist(dataset);
    CHECK(H5Pget_nfilters(creation) == 1);
    hsize_t chunk = 0;
    CHECK(H5Pget_chunk(creation, 1, &chunk) == 1);
    CHECK(chunk == 65'536);
    H5Pclose(creation);
    H5Dclose(dataset);
    H5Fclose(file);
  }

  TEST_CASE("hdf5: chunks lie where chunks() says, as they are") {
    const ScratchFolder folder;
    const auto table = counted<uint32_t>(3 * 5000);
    for (const uint64_t alignment : {uint64_t{1}, uint64_t{4096}}) {
      Hdf5Writer writer(folder / "c.h5", alignment);
      writer.write_chunked("/ids", Hdf5Type::u32, {5000, 3}, 2048, table.data());
      writer.reserve_contiguous("/flat", Hdf5Type::u32, {5});
      writer.close();
      const Hdf5Reader reader(folder / "c.h5");
      const Hdf5Chunks chunks = reader.chunks("/ids");
      CHECK(chunks.rows == 2048);
      REQUIRE(chunks.offsets.size() == 3);
      const std::string bytes = slurp(folder / "c.h5");
      for (size_t row = 0; row < 5000; ++row) {
        const uint64_t offset = chunks.offsets[row / 2048] + row % 2048 * 12;
        REQUIRE(std::memcmp(bytes.data() + offset, &table[3 * row], 12) == 0);
      }
      CHECK(caught([&] { reader.chunks("/flat"); }).says("not chunked"));
      CHECK(caught([&] { reader.chunks("/absent"); }).code == 3);
    }
    foreign(folder / "f.h5", [](hid_t file) {
      const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
      const hsize_t chunk[] = {4, 2};
      H5Pset_chunk(creation, 2, chunk);
      make_dataset(file, "tiles", H5T_STD_U16LE, {8, 4}, creation);
      H5Pset_chunk(creation, 1, chunk);
      H5Pset_shuffle(creation);
      make_dataset(file, "shuffled", H5T_STD_U16LE, {8}, creation);
      H5Pclose(creation);
    });
    const Hdf5Reader reader(folder / "f.h5");
    CHECK(caught([&] { reader.chunks("/tiles"); }).says("along its first axis"));
    CHECK(caught([&] { reader.chunks("/shuffled"); }).says("filters other than"));
  }

  TEST_CASE("hdf5: several threads read one reader") {
    const ScratchFolder folder;
    const auto tokens = counted<uint16_t>(300'000);
    {
      Hdf5Writer writer(folder / "t.h5");
      writer.write_chunked("/tokens", Hdf5Type::u16, {tokens.size()}, 65'536, tokens.data());
      writer.close();
    }
    const Hdf5Reader reader(folder / "t.h5");
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < 4; ++t)
      threads.emplace_back([&, t] {
        std::vector<uint16_t> window(4097);
        for (uint64_t i = 0; i < 50; ++i) {
          const uint64_t begin = random_bits(1, Purpose::test, t, i) % (tokens.size() - window.size());
          reader.read("/tokens", Hdf5Type::u16, begin, window.size(), window.data());
          wrong += std::memcmp(window.data(), tokens.data() + begin, window.size() * 2) != 0;
        }
      });
    for (auto& thread : threads) thread.join();
    CHECK(wrong == 0);
  }
}

TEST_SUITE("faults") {
  TEST_CASE("row 25: features of foreign files are refused by name before anything is read") {
    start_hdf5();
    const ScratchFolder folder;
    const fs::path path = folder / "f.h5";
    spill(folder / "secret", std::string(64, 's'));
    foreign(path, [&](hid_t file) {
      make_dataset(file, "good", H5T_STD_U16LE, {4});
      H5Lcreate_soft("/good", file, "soft", H5P_DEFAULT, H5P_DEFAULT);
      H5Lcreate_external((folder / "other.h5").c_str(), "/x", file, "external", H5P_DEFAULT, H5P_DEFAULT);
      const hid_t group = H5Gcreate2(file, "group", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
      H5Lcreate_soft("/", group, "up", H5P_DEFAULT, H5P_DEFAULT);
      H5Gclose(group);
      hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
      H5Pset_external(creation, (folder / "secret").c_str(), 0, 64);
      make_dataset(file, "outside", H5T_STD_U8LE, {64}, creation);
      H5Pclose(creation);
      creation = H5Pcreate(H5P_DATASET_CREATE);
      const hsize_t four = 4;
      const hid_t space = H5Screate_simple(1, &four, nullptr);
      H5Pset_virtual(creation, space, (folder / "other.h5").c_str(), "/x", space);
      make_dataset(file, "virtual", H5T_STD_U16LE, {4}, creation);
      H5Sclose(space);
      H5Pclose(creation);
      creation = H5Pcreate(H5P_DATASET_CREATE);
      const hsize_t chunk = 4;
      H5Pset_chunk(creation, 1, &chunk);
      H5Pset_filter(creation, 32015, H5Z_FLAG_OPTIONAL, 0, nullptr);  // a plugin's number
      make_dataset(file, "filtered", H5T_STD_U16LE, {4}, creation);
      H5Pclose(creation);
      creation = H5Pcreate(H5P_DATASET_CREATE);
      H5Pset_chunk(creation, 1, &chunk);
      make_dataset(file, "bomb", H5T_IEEE_F32LE, {hsize_t{1} << 50}, creation);
      H5Pclose(creation);
      const hid_t text = H5Tcopy(H5T_C_S1);
      H5Tset_size(text, H5T_VARIABLE);
      make_dataset(file, "strings", text, {2});
      const hid_t scalar = H5Screate(H5S_SCALAR);
      const hid_t attribute = H5Acreate2(file, "note", text, scalar, H5P_DEFAULT, H5P_DEFAULT);
      const char* value = "x";
      H5Awrite(attribute, text, &value);
      H5Aclose(attribute);
      const hid_t negative = H5Acreate2(file, "negative", H5T_STD_I32LE, scalar, H5P_DEFAULT, H5P_DEFAULT);
      const int minus_one = -1;
      H5Awrite(negative, H5T_NATIVE_INT, &minus_one);
      H5Aclose(negative);
      H5Sclose(scalar);
      H5Tclose(text);
      make_dataset(file, "big_endian", H5T_STD_U16BE, {2});
      make_dataset(file, "double", H5T_IEEE_F64LE, {2});
      const hid_t committed = H5Tcopy(H5T_STD_U16LE);
      H5Tcommit2(file, "type", committed, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
      make_dataset(file, "typed", committed, {2});
      H5Tclose(committed);
    });
    CHECK(refusal(path, "/good").code == 0);
    const std::pair<const char*, const char*> expected[] = {{"/soft", "soft link"},
                                                            {"/external", "external link"},
                                                            {"/group/up/good", "soft link"},
                                                            {"/outside", "external storage"},
                                                            {"/virtual", "virtual"},
                                                            {"/filtered", "filter 32015"},
                                                            {"/bomb", "stores 0"},
                                                            {"/strings", "variable-length"},
                                                            {"/big_endian", "little-endian"},
                                                            {"/double", "none of f32"},
                                                            {"/typed", "committed"},
                                                            {"/type", "not a dataset"}};
    for (const auto& [name, reason] : expected) {
      CAPTURE(name);
      const auto error = refusal(path, name);
      CHECK(error.code == 3);
      CHECK(error.says(reason));
    }
    const Hdf5Reader reader(path);
    CHECK(caught([&] { reader.datasets(); }).code == 3);
    CHECK(caught([&] { reader.string_attribute("/", "note"); }).says("variable-length"));
    CHECK(caught([&] { reader.string_attribute("/soft", "note"); }).says("soft link"));
    CHECK(caught([&] { reader.unsigned_attribute("/", "negative"); }).says("-1"));
  }

  TEST_CASE("row 25: cyclic groups and names that steer a terminal") {
    const ScratchFolder folder;
    foreign(folder / "cycle.h5", [](hid_t file) {
      const hid_t group = H5Gcreate2(file, "a", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
      H5Lcreate_hard(file, "/", group, "back", H5P_DEFAULT, H5P_DEFAULT);
      H5Gclose(group);
    });
    CHECK(caught([&] { Hdf5Reader(folder / "cycle.h5").datasets(); }).says("cycle"));
    foreign(folder / "name.h5", [](hid_t file) { make_dataset(file, "x\x1b[2J", H5T_STD_U8LE, {1}); });
    const auto error = caught([&] { Hdf5Reader(folder / "name.h5").datasets(); });
    CHECK(error.code == 3);
    CHECK_FALSE(error.says("\x1b"));
  }

  TEST_CASE("hdf5: what is no HDF5 file is a bad file") {
    const ScratchFolder folder;
    spill(folder / "text", "hello");
    spill(folder / "empty", "");
    for (const char* name : {"text", "empty", "absent", ""}) {
      CAPTURE(name);
      CHECK(caught([&] { Hdf5Reader reader(folder / name); }).code == 3);
    }
    CHECK(caught([&] { Hdf5Writer writer(folder / "absent/x.h5"); }).code == 4);
    CHECK(caught([&] { Hdf5Writer writer(folder / "absent/x.h5"); }).says("No such file"));
  }

  TEST_CASE("row 24: truncation and flipped data bytes are seen") {
    const ScratchFolder folder;
    const fs::path path = folder / "d.h5", damaged = folder / "damaged.h5";
    const auto tokens = counted<uint16_t>(70'000);
    {
      Hdf5Writer writer(path);
      writer.write_chunked("/tokens", Hdf5Type::u16, {tokens.size()}, 65'536, tokens.data());
      writer.close();
    }
    const std::string bytes = slurp(path);
    const auto read = [&](const std::string& content) {
      spill(damaged, content);
      return caught([&] {
               std::vector<uint16_t> got(tokens.size());
               Hdf5Reader(damaged).read_all("/tokens", Hdf5Type::u16, got.data(), got.size() * 2);
               if (got != tokens) throw std::runtime_error("silently wrong");
             })
          .code;
    };
    CHECK(read(bytes) == 0);
    for (const double share : {0.0, 0.1, 0.5, 0.9, 0.999})
      CHECK(read(bytes.substr(0, static_cast<size_t>(static_cast<double>(bytes.size()) * share))) == 3);
    const size_t data_at = bytes.find(std::string(reinterpret_cast<const char*>(tokens.data()), 64));
    REQUIRE(data_at != std::string::npos);
    for (const size_t offset : {size_t{0}, size_t{1}, size_t{5000}, size_t{131'071}}) {
      std::string flipped = bytes;
      flipped[data_at + offset] ^= 0x10;
      CAPTURE(offset);
      CHECK(read(flipped) == 3);
    }
  }

  TEST_CASE(
      "row 6: a limit on the file size stops at the creation of the dataset; the process lives on and can write "
      "again") {
    const ScratchFolder folder;
    const auto tokens = counted<uint16_t>(1 << 20);
    const int code = run_in_child([&] {
      ::signal(SIGXFSZ, SIG_IGN);
      const rlimit limit{.rlim_cur = 256 << 10, .rlim_max = RLIM_INFINITY};
      ::setrlimit(RLIMIT_FSIZE, &limit);
      const auto error = caught([&] {
        Hdf5Writer writer(folder / "a.h5");
        writer.write_chunked("/tokens", Hdf5Type::u16, {tokens.size()}, 65'536, tokens.data());
        writer.close();
      });
      if (error.code != 4 || !error.says("a.h5") || !error.says("File too large")) {
        fmt::print(stderr, "{}: {}\n", error.code, error.text);
        ::_exit(10);
      }
      const rlimit none{.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};
      ::setrlimit(RLIMIT_FSIZE, &none);
      Hdf5Writer writer(folder / "b.h5");
      writer.write_chunked("/tokens", Hdf5Type::u16, {tokens.size()}, 65'536, tokens.data());
      writer.close();
    });
    CHECK(code == 0);
    CHECK(Hdf5Reader(folder / "b.h5").shape("/tokens").dims[0] == tokens.size());
  }

  TEST_CASE("row 6: metadata that cannot be written is found by close()") {
    const ScratchFolder folder;
    const int code = run_in_child([&] {
      ::signal(SIGXFSZ, SIG_IGN);
      Hdf5Writer writer(folder / "a.h5");
      for (int i = 0; i < 200; ++i) writer.reserve_contiguous(fmt::format("/model/tensor{}", i), Hdf5Type::f32, {16});
      const rlimit limit{.rlim_cur = 512, .rlim_max = RLIM_INFINITY};
      ::setrlimit(RLIMIT_FSIZE, &limit);
      writer.close();
    });
    CHECK(code == 4);
  }
}
