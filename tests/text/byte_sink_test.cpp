// What is written can be read back within the limits of what comes from outside.
#include "src/text/byte_sink.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "src/text/byte_source.h"
#include "tests/scratch_folder.h"

using namespace coppice;

namespace {

std::string written(const std::filesystem::path& path, const std::string& text, size_t piece) {
  ByteSink sink(path, ByteSink::Coding::zstd);
  for (size_t at = 0; at < text.size(); at += piece) sink.write(std::string_view(text).substr(at, piece));
  sink.commit();
  return slurp(path);
}

/// Refuses what unpacks to more than 1,000 times its size.
std::string unpacked(const std::filesystem::path& path) {
  ByteSource source(path, ByteSource::Coding::zstd);
  std::string text;
  for (std::string_view block = source.next(); !block.empty(); block = source.next()) text += block;
  return text;
}

/// Bytes that nothing packs.
std::string noise(size_t bytes) {
  std::string text;
  uint64_t state = 1;
  for (size_t i = 0; i < bytes; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    text += static_cast<char>(state >> 56);
  }
  return text;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("byte sink: what repeats itself without end is no bomb, and the same bytes however it comes") {
    const ScratchFolder folder("byte_sink");
    std::string lines;
    while (lines.size() < (size_t{24} << 20)) lines += "{\"text\":\"the same line\"}\n";
    for (const std::string& text : {std::string(size_t{24} << 20, 'a'), lines, noise(3 << 20) + lines,
                                    std::string((size_t{1} << 20) + 1, ' ') + noise(1 << 16) + lines}) {
      const std::string whole = written(folder / "whole.zst", text, text.size());
      CHECK(unpacked(folder / "whole.zst") == text);
      CHECK(whole.size() < 4 * (size_t{1} << 20));
      CHECK(written(folder / "pieces.zst", text, 4099) == whole);
    }
  }

  TEST_CASE("byte sink: ordinary text is one frame as before, and nothing is something") {
    const ScratchFolder folder("byte_sink");
    const std::string text = noise(1 << 16);
    CHECK(written(folder / "noise.zst", text, 1000).size() < text.size() + 64);
    CHECK(unpacked(folder / "noise.zst") == text);
    CHECK_FALSE(written(folder / "empty.zst", "", 1).empty());
    CHECK(unpacked(folder / "empty.zst").empty());
  }
}
