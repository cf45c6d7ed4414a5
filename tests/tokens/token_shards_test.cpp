// Shards written, read back and damaged.
#include "src/tokens/token_shards.h"

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <numeric>

#include "src/base/random.h"
#include "src/tokens/columns.h"
#include "src/tokens/token_shard_writer.h"
#include "tests/data/data_files.h"

namespace coppice {

using test::RawShard;
using test::write_documents;

namespace {

std::vector<int64_t> read_all(const TokenShards& shards, size_t shard) {
  std::vector<int64_t> ids(shards.shards()[shard].tokens);
  shards.read(shard, 0, ids.size(), ids.data());
  return ids;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("token shards: documents with EOS, cut at document ends, counts and hashes in the manifest") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "t", {{5, 6}, {7}, {8, 9, 5, 6}, {}}, 10, 6, "code");
    const TokenShards shards(folder.path / "t");
    CHECK(shards.domain() == "code");
    CHECK(shards.vocab_size() == 10);
    CHECK(shards.eos_id() == 2);
    CHECK(shards.tokenizer_sha256() == "tokenizer-hash");
    REQUIRE(shards.shards().size() == 2);  // 3 + 2 tokens, then 5 + 1
    CHECK(read_all(shards, 0) == std::vector<int64_t>{5, 6, 2, 7, 2});
    CHECK(read_all(shards, 1) == std::vector<int64_t>{8, 9, 5, 6, 2, 2});
    CHECK(shards.document_ends(0) == std::vector<uint64_t>{3, 5});
    CHECK(shards.document_ends(1) == std::vector<uint64_t>{5, 6});
    CHECK(shards.num_tokens() == 11);
    CHECK(shards.text_bytes() == 3 * 7);
    CHECK(shards.shards()[0].text_bytes == 9);
    CHECK(shards.shards()[1].documents == 2);
    CHECK(shards.manifest_sha256() == sha256_file(folder.path / "t/manifest.json"));
    CHECK(shards.shards()[0].sha256 == sha256_file(folder.path / "t/shard-00000.h5"));
  }

  TEST_CASE("token shards: equal documents give equal bytes, writing again replaces a larger set") {
    const ScratchFolder folder;
    const std::vector<std::vector<int32_t>> documents = {{5, 6, 7, 8}, {9, 9}, {4}};
    test::write_documents(folder.path / "a", documents, 10, 100);
    test::write_documents(folder.path / "b", documents, 10, 2);
    CHECK(TokenShards(folder.path / "b").shards().size() == 3);
    test::write_documents(folder.path / "b", documents, 10, 100);
    CHECK(TokenShards(folder.path / "b").shards().size() == 1);
    CHECK_FALSE(std::filesystem::exists(folder.path / "b/shard-00001.h5"));
    for (const char* name : {"shard-00000.h5", "manifest.json"})
      CHECK(slurp(folder.path / "a" / name) == slurp(folder.path / "b" / name));
  }

  TEST_CASE("token shards: without finish there is no manifest, so the folder cannot be opened") {
    const ScratchFolder folder;
    {
      TokenShardWriter writer(folder.path / "t", "prose", 10, 2, "h", 3);
      writer.add(1, {5, 6}, 2);
      writer.add(2, {7, 8}, 2);
    }
    CHECK(caught([&] { TokenShards shards(folder.path / "t"); }).code == 3);
  }

  TEST_CASE("token shards: after a stop the same documents go on behind the last whole shard, to the same bytes") {
    const ScratchFolder straight, stopped;
    std::vector<std::vector<int32_t>> documents;
    for (int i = 0; i < 20; ++i) documents.push_back(std::vector<int32_t>(1 + i % 3, 5 + i % 4));
    write_documents(straight.path, documents, 10, 8);
    const auto write = [&](size_t end) {
      TokenShardWriter writer(stopped.path, "prose", 10, 2, "tokenizer-hash", 8);
      size_t skipped = 0;
      for (size_t i = 0; i < end; ++i) {
        if (writer.skip())
          ++skipped;
        else
          writer.add(1000 + i, documents[i], 3 * documents[i].size());
      }
      if (end == documents.size()) writer.finish();
      return skipped;
    };
    CHECK(write(9) == 0);  // stops inside a shard
    const size_t whole = write(13);
    CHECK(whole > 4);
    CHECK(whole < 9);
    CHECK(write(20) > whole);
    for (const auto& entry : std::filesystem::directory_iterator(straight.path)) {
      INFO(entry.path().filename().string());
      CHECK((slurp(entry.path()) == slurp(stopped.path / entry.path().filename())));
    }
    CHECK_FALSE(std::filesystem::exists(stopped.path / "partial.json"));

    SUBCASE("shards of another tokenizer are not taken over") {
      write(20);
      TokenShardWriter(stopped.path, "prose", 10, 2, "tokenizer-hash", 8).add(1, {5, 5, 5}, 1);
      CHECK_FALSE(TokenShardWriter(stopped.path, "prose", 10, 2, "another", 8).skip());
    }
    SUBCASE("a damaged shard is written again, with all behind it") {
      const ScratchFolder damaged;
      {
        TokenShardWriter writer(damaged.path, "prose", 10, 2, "tokenizer-hash", 8);
        for (size_t i = 0; i < 13; ++i) writer.add(1000 + i, documents[i], 3 * documents[i].size());
      }
      damaged.write("shard-00000.h5", "damaged");
      CHECK_FALSE(TokenShardWriter(damaged.path, "prose", 10, 2, "tokenizer-hash", 8).skip());
    }
  }

  TEST_CASE("token shards: ids above 65,534 take four bytes, and random windows equal the stream") {
    const ScratchFolder folder;
    for (const int64_t vocab_size : {65'535, 151'936}) {
      std::vector<std::vector<int32_t>> documents(40);
      std::vector<int64_t> stream;
      for (size_t d = 0; d < documents.size(); ++d) {
        for (uint64_t i = 0; i < 5000; ++i)
          documents[d].push_back(
              static_cast<int32_t>(random_bits(1, Purpose::test, d, i) % static_cast<uint64_t>(vocab_size)));
        documents[d].back() = static_cast<int32_t>(vocab_size - 1);
        stream.insert(stream.end(), documents[d].begin(), documents[d].end());
        stream.push_back(2);
      }
      test::write_documents(folder.path / "t", documents, vocab_size, 1 << 20);
      const TokenShards shards(folder.path / "t");
      REQUIRE(shards.num_tokens() == stream.size());
      const uint64_t width = vocab_size > 65'535 ? 4 : 2;
      CHECK(shards.shards()[0].bytes < stream.size() * width * 101 / 100 + 16'384);
      for (uint64_t i = 0; i < 200; ++i) {
        const uint64_t begin = random_bits(2, Purpose::test, 0, i) % (stream.size() - 300),
                       count = 1 + random_bits(2, Purpose::test, 1, i) % 300;
        std::vector<int64_t> window(count);
        shards.read(0, begin, count, window.data());
        CHECK(std::equal(window.begin(), window.end(), stream.begin() + static_cast<int64_t>(begin)));
      }
    }
  }

  TEST_CASE("token shards: more of them than the soft limit of open files allows") {
    const ScratchFolder folder;
    write_documents(folder.path, std::vector<std::vector<int32_t>>(60, {5, 6, 7}), 10, 4);
    rlimit limit = {};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
    const rlimit small{.rlim_cur = 40, .rlim_max = limit.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &small) == 0);
    const Caught refusal = caught([&] { CHECK(TokenShards(folder.path).shards().size() == 60); });
    ::setrlimit(RLIMIT_NOFILE, &limit);
    CHECK(refusal.text.empty());
  }

  TEST_CASE("even_chunk_rows: few and full chunks") {
    CHECK(even_chunk_rows(5, 65'536) == 5);
    CHECK(even_chunk_rows(65'536, 65'536) == 65'536);
    CHECK(even_chunk_rows(65'537, 65'536) == 32'769);
    CHECK(even_chunk_rows(1 << 20, 65'536) == 65'536);
  }
}

TEST_SUITE("faults") {
  TEST_CASE("token shards: content that the hashes vouch for is still checked") {
    const ScratchFolder folder;
    const auto refuse = [&](const RawShard& shard, const std::string& part) {
      shard.write(folder.path / "t");
      const Caught refusal = caught([&] { TokenShards shards(folder.path / "t"); });
      INFO(part << ": " << refusal.text);
      CHECK(refusal.code == 3);
      CHECK(refusal.says(part));
    };
    RawShard good;
    good.write(folder.path / "t");
    CHECK(TokenShards(folder.path / "t").num_tokens() == 5);

    RawShard shard = good;
    shard.tokens[3] = 10;
    refuse(shard, "token 3 has id 10, the vocabulary holds 10: document 1");
    shard = good;
    shard.document_ends = {5, 3};
    refuse(shard, "doc_end out of order");
    shard.document_ends = {3, 3};
    refuse(shard, "doc_end out of order");
    shard.document_ends = {3, 6};
    refuse(shard, "doc_end out of order");
    shard.document_ends = {3};
    refuse(shard, "the last document ends at 3, expected 5");
    shard.document_ends = {2, 5};
    refuse(shard, "expected the end id 2");
    shard = good;
    shard.listed_tokens = 6;
    refuse(shard, "found another type or shape");
    shard.listed_tokens = uint64_t{1} << 62;
    refuse(shard, "cannot lie in");
    shard.listed_tokens = uint64_t{1} << 63;
    refuse(shard, "");
    shard.listed_tokens = 0;
    refuse(shard, "0 tokens");
    shard = good;
    shard.eos_id = 12;
    refuse(shard, "eos_id 12");
    shard = good;
    shard.vocab_size = 70'000;
    refuse(shard, "found another type or shape");
    shard = good;
    shard.version = 2;
    refuse(shard, "2");
    shard = good;
    shard.format = "coppice.labels";
    refuse(shard, "coppice.labels");
  }

  TEST_CASE("token shards: a flipped byte, a cut, a missing or an empty file, a changed manifest") {
    const ScratchFolder folder;
    test::write_documents(folder.path / "t", {{5, 6}, {7, 8, 9}}, 10, 100);
    const auto shard = folder.path / "t/shard-00000.h5", manifest = folder.path / "t/manifest.json";
    const std::string bytes = slurp(shard), sealed = slurp(manifest);
    const auto refuse = [&](const std::filesystem::path& path, const std::string& damaged, const std::string& part) {
      const std::string whole = slurp(path);
      std::ofstream(path, std::ios::binary) << damaged;
      const Caught refusal = caught([&] { TokenShards shards(folder.path / "t"); });
      INFO(part << ": " << refusal.text);
      CHECK(refusal.code == 3);
      CHECK(refusal.says(part));
      std::ofstream(path, std::ios::binary) << whole;
    };
    for (size_t i = 0; i < bytes.size(); i += 97) {
      std::string damaged = bytes;
      damaged[i] ^= 1;
      refuse(shard, damaged, "SHA-256");
    }
    for (size_t i = 0; i < sealed.size(); ++i) {
      std::string damaged = sealed;
      damaged[i] ^= 1;
      refuse(manifest, damaged, "manifest.json");
    }
    refuse(shard, bytes.substr(0, bytes.size() / 2), "bytes (manifest)");
    refuse(shard, "", "found 0");
    refuse(manifest, "", "manifest.json");
    CHECK(TokenShards(folder.path / "t").num_tokens() == 7);
    std::filesystem::remove(shard);
    CHECK(caught([&] { TokenShards shards(folder.path / "t"); }).says("shard-00000.h5"));
  }

  TEST_CASE("token shards: names from a manifest stay in their folder") {
    const ScratchFolder folder;
    RawShard().write(folder.path / "t");
    Json manifest = Json::parse(slurp(folder.path / "t/manifest.json"));
    manifest.erase("sha256");
    for (const char* name : {"../t/shard-00000.h5", "/etc/passwd", "..", "a/b", "shard\n.h5"}) {
      manifest["shards"][0]["name"] = name;
      write_file_atomically(folder.path / "t/manifest.json", seal(manifest));
      CHECK(caught([&] { TokenShards shards(folder.path / "t"); }).code == 3);
    }
  }
}

}  // namespace coppice
