// The step on invented documents: who goes for whom, and that nothing else decides it.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "src/base/json.h"
#include "src/base/random.h"
#include "src/text/byte_source.h"
#include "src/text/document_metadata.h"
#include "tests/caught.h"
#include "tests/corpus/dedup/group_runs.h"
#include "tests/project_folders.h"

using namespace coppice;
using namespace coppice::test;

namespace {

using Ids = std::vector<std::string>;

/// Letters alone: digits are all one in the normal form.
std::string word(uint64_t stream, uint64_t number) {
  std::string text;
  for (uint64_t bits = random_bits(5, Purpose::test, stream, number); text.size() < 9; bits /= 26)
    text += static_cast<char>('a' + bits % 26);
  return text;
}

/// `count` words of a stream from the `first` on.
std::string words(uint64_t stream, uint64_t first, uint64_t count) {
  std::string text;
  for (uint64_t i = first; i < first + count; ++i) text += (text.empty() ? "" : " ") + word(stream, i);
  return text;
}

/// Texts that share words [first, 200): similar as (196 - first) to (196 + first).
std::string near(uint64_t stream, uint64_t first) { return words(stream, first, 200); }

GroupRun one_file(std::vector<Document> documents) { return {.files = {{.documents = std::move(documents)}}}; }

std::vector<std::vector<Looked>> run(const GroupRun& run, const std::string& options) {
  const ScratchFolder folder("dedup");
  return run.run(*group_step("dedup", options), folder.path);
}

const Json& fixture() {
  static const Json json = read_json(source_folder() / "tests/corpus/fixtures/near_duplicates.json");
  return json;
}

std::string unpacked(const std::filesystem::path& path) {
  ByteSource source(path, ByteSource::Coding::zstd);
  std::string bytes;
  for (std::string_view block = source.next(); !block.empty(); block = source.next()) bytes += block;
  return bytes;
}

/// Four files of two sources with exact and near copies across them, and documents of their own.
GroupRun mixed_run() {
  GroupRun made{.files = {{}, {}, {.source = 1}, {.source = 1}}, .priorities = {2, 1}};
  for (uint64_t i = 0; i < 1200; ++i) {
    const uint64_t stream = random_bits(6, Purpose::test, 0, i) % 400,
                   change = random_bits(6, Purpose::test, 1, i) % 50;
    Document made_here = document(fmt::format("d{}", i), i % 97 == 0 ? "!!!" : near(stream, change));
    made.files[i % 4].documents.push_back(std::move(made_here));
  }
  return made;
}

/// Of clusters.jsonl: whether each member is kept.
std::map<std::string, bool> kept_in_clusters(const std::filesystem::path& folder) {
  std::map<std::string, bool> kept;
  std::istringstream lines(unpacked(folder / "clusters.jsonl.zst"));
  for (std::string line; std::getline(lines, line);) {
    const Json member = parse_json(line, "clusters");
    kept[member["id"]] = member["kept"];
  }
  return kept;
}

struct Everything {
  std::vector<std::vector<Looked>> looked;
  std::string clusters, decisions;
};

Everything everything(const GroupRun& made, const std::string& options) {
  const ScratchFolder folder("dedup");
  Everything all{.looked = made.run(*group_step("dedup", options), folder.path)};
  all.clusters = slurp(folder / "clusters.jsonl.zst");
  for (size_t file = 0; file < made.files.size(); ++file)
    all.decisions += slurp(folder.path / "decisions" / fmt::format("{:08}", file));
  return all;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("dedup: pairs of the fixture go from similarity 0.7 on, which is exact with verify = text") {
    // 112 bands of one value: whoever is similar at all meets.
    const std::string options = "verify = 'text'\nbands = 112\nrows = 1\n";
    for (const Json& pair : fixture()["pairs"]) {
      const auto looked = run(one_file({document("a", pair["a"]), document("b", pair["b"])}), options);
      const double similarity = pair["jaccard"];
      CAPTURE(similarity);
      CHECK(looked[0][0].rule.empty());
      CHECK(looked[0][1].rule == (similarity == 1 ? "exact" : similarity >= 0.7 ? "near" : ""));
      if (similarity >= 0.7)
        CHECK(looked[0][1].details ==
              fmt::format("\"kept_id\":\"a\",\"similarity\":{:.4g}", static_cast<float>(similarity)));
    }
  }

  TEST_CASE("dedup: the clusters of the fixture keep what it says") {
    for (const Json& cluster : fixture().at("clusters")) {
      GroupRun made{.priorities = {}};  // a source and a file for each document, to give each its priority
      for (uint32_t i = 0; i < cluster["documents"].size(); ++i) {
        made.files.push_back({.documents = {document(std::to_string(i), cluster["documents"][i])}, .source = i});
        made.priorities.push_back(cluster.contains("priority") ? cluster["priority"][i].get<int>() : 1);
      }
      Ids kept;
      for (const Json& number : cluster["kept"]) kept.push_back(std::to_string(number.get<int>()));
      for (const char* verify : {"text", "signature", "none"}) {
        CAPTURE(cluster["note"].get<std::string>());
        CHECK(kept_ids(run(made, fmt::format("verify = '{}'\n", verify))) == kept);
      }
    }
  }

  TEST_CASE("dedup: near copies go for one that stays, which says how many they were") {
    const auto looked = run(one_file({document("a", near(1, 0)), document("x", near(2, 0)), document("b", near(1, 8)),
                                      document("B", near(1, 8) + "!"), document("A", near(1, 0))}),
                            "");
    CHECK(kept_ids(looked) == Ids{"a", "x"});
    CHECK(metadata_text(looked[0][0].document, "copies").empty());
    CHECK(find_metadata(looked[0][0].document, "copies") == Json(4));
    CHECK_FALSE(find_metadata(looked[0][1].document, "copies").has_value());
    CHECK(looked[0][2].rule == "near");
    CHECK(looked[0][3].rule == "near");
    CHECK(looked[0][2].details == looked[0][3].details);
    CHECK(looked[0][2].details.starts_with(R"("kept_id":"a","similarity":0.9)"));
    CHECK(looked[0][4].rule == "exact");
    CHECK(looked[0][4].details == R"("kept_id":"a","similarity":1)");
  }

  TEST_CASE("dedup: a chain does not take the last with the first, unless clusters are whole components") {
    const GroupRun chain =
        one_file({document("a", near(1, 0)), document("b", near(1, 25)), document("c", near(1, 50))});  // .77, .59
    const std::string options = "bands = 112\nrows = 1\nmin_similarity = 0.7\nverify = 'text'\n";
    CHECK(kept_ids(run(chain, options)) == Ids{"a", "c"});
    CHECK(kept_ids(run(chain, options + "cluster = 'connected'\n")) == Ids{"a"});
    const auto unverified = run(chain, "bands = 112\nrows = 1\nverify = 'none'\ncluster = 'connected'\n");
    CHECK(kept_ids(unverified) == Ids{"a"});
    CHECK(unverified[0][2].details == R"("kept_id":"a")");
  }

  TEST_CASE("dedup: same bytes for any memory, and any order of noting") {
    GroupRun made = mixed_run();
    made.memory_bytes = 1 << 30;
    for (const char* options : {"", "cluster = 'connected'\nkeep = 'longest'\n"}) {
      made.memory_bytes = 1 << 30;
      made.note_order = {};
      const Everything large = everything(made, options);
      const size_t kept = kept_ids(large.looked).size();
      CHECK(kept > 300);
      CHECK(kept < 700);
      made.memory_bytes = 1'000'000;
      made.note_order = {2, 0, 3, 1};
      const Everything small = everything(made, options);
      CHECK(small.clusters == large.clusters);
      CHECK(small.decisions == large.decisions);
      made.memory_bytes = 60'000;  // signatures one by one, groups from the disk
      CHECK(everything(made, options).decisions == large.decisions);
    }
  }

  TEST_CASE("dedup: who goes is similar to one that stays, and clusters.jsonl names every member") {
    const ScratchFolder folder("dedup");
    const GroupRun made = mixed_run();
    const auto looked = made.run(*group_step("dedup", ""), folder.path);
    std::set<std::string> kept, gone;
    for (const auto& file : looked)
      for (const Looked& one : file) (one.rule.empty() ? kept : gone).insert(one.document.id);
    for (const auto& file : looked)
      for (const Looked& one : file)
        if (!one.rule.empty()) CHECK(kept.contains(parse_json("{" + one.details + "}", "details")["kept_id"]));
    std::map<uint64_t, uint64_t> heads;
    size_t lines = 0;
    std::istringstream clusters(unpacked(folder / "clusters.jsonl.zst"));
    for (std::string line; std::getline(clusters, line); ++lines) {
      const Json member = parse_json(line, "clusters");
      CHECK((member["kept"] == true ? kept : gone).contains(member["id"]));
      heads[member["cluster"]] += member["kept"] == true ? 1 : 0;
      if (member["kept"] == false) gone.erase(member["id"]);
    }
    CHECK(gone.empty());
    CHECK(lines > 1000);
    for (const auto& [cluster, count] : heads) CHECK(count == 1);
  }

  TEST_CASE("dedup: a step that was killed goes on to the same decisions") {
    const ScratchFolder folder("dedup");
    const GroupRun made = mixed_run();
    const auto step = group_step("dedup", "");
    const Everything whole = everything(made, "");
    made.note(*step, folder.path);
    step->reduce(made.place(folder.path), 0);
    made.run(*step, folder.path);  // notes once more, as after a kill between notes and their marker
    CHECK(slurp(folder / "clusters.jsonl.zst") == whole.clusters);
    step->settle(made.place(folder.path));
    CHECK(slurp(folder / "clusters.jsonl.zst") == whole.clusters);
  }

  TEST_CASE("dedup: which copy stays") {
    Document a = document("a", near(1, 0)), b = document("b", near(1, 4)),
             c = document("c", near(1, 4) + " more words");
    a.metadata = R"("date":"2026-01-31","scores":{"quality":0.5})";
    b.metadata = R"("date":"2026-02-01T10:00:00Z","scores":{"quality":-1.5})";
    c.scores = {{.name = "quality", .value = 0.75}};
    const GroupRun made = one_file({a, b, c});
    CHECK(kept_ids(run(made, "")) == Ids{"a"});
    CHECK(kept_ids(run(made, "keep = 'longest'\n")) == Ids{"c"});
    CHECK(kept_ids(run(made, "keep = 'newest'\n")) == Ids{"b"});
    CHECK(kept_ids(run(made, "keep = 'score:quality'\n")) == Ids{"c"});
    b.metadata.clear();
    b.fields = R"("date":"2026-03-01","scores":{"quality":2})";  // beside the text, as others' lines have it
    const GroupRun beside = one_file({a, b, c});
    CHECK(kept_ids(run(beside, "keep = 'newest'\n")) == Ids{"b"});
    CHECK(kept_ids(run(beside, "keep = 'score:quality'\n")) == Ids{"b"});
    CHECK(kept_ids(run(made, "keep = 'score:other'\n")) == Ids{"a"});
    const auto none = run(made, "keep = 'none'\n");
    CHECK(kept_ids(none).empty());
    CHECK(none[0][0].rule == "copied");
    CHECK(none[0][0].details == R"("copies":3)");
    CHECK(none[0][1].details.starts_with(R"("copy_of":"a","similarity":)"));
  }

  TEST_CASE("dedup: with keep = none every document goes that is similar to another, and none is said to be kept") {
    const ScratchFolder folder("dedup");
    const GroupRun chain = one_file({document("a", near(1, 0)), document("b", near(1, 25)), document("c", near(1, 50)),
                                     document("C", near(1, 50)), document("x", near(2, 0))});  // .77, .59
    const auto looked =
        chain.run(*group_step("dedup", "keep = 'none'\nbands = 112\nrows = 1\nmin_similarity = 0.7\nverify = 'text'\n"),
                  folder.path);
    CHECK(kept_ids(looked) == Ids{"x"});
    CHECK(looked[0][0].rule == "copied");
    CHECK(looked[0][0].details == R"("copies":4)");
    CHECK(looked[0][2].rule == "near");
    CHECK(looked[0][3].rule == "near");  // as c, of which it is an exact copy
    CHECK(kept_in_clusters(folder.path) ==
          std::map<std::string, bool>{{"a", false}, {"b", false}, {"c", false}, {"C", false}});
  }

  TEST_CASE("dedup: exact copies are chosen among in the same way") {
    Document a = document("a", near(1, 0)), b = document("b", near(1, 0));
    b.scores = {{.name = "quality", .value = 1}};
    CHECK(kept_ids(run(one_file({a, b, document("c", near(1, 3))}), "keep = 'score:quality'\n")) == Ids{"b"});
    GroupRun made{.files = {{.documents = {a, b}}, {.documents = {document("c", near(1, 0))}, .source = 1}},
                  .priorities = {5, 1}};
    CHECK(kept_ids(run(made, "keep = 'score:quality'\n")) == Ids{"c"});
  }

  TEST_CASE("dedup: source files by their identifiers and signs, whose white space does not count") {
    const std::string file = "int main(int n) {\n  return n + Limit[0x10];\n}\n";
    const GroupRun made =
        one_file({document("a", file), document("blanks", "int main( int n ){return n+Limit[0x10];}"),
                  document("sign", "int main(int n) {\n  return n - Limit[0x10];\n}\n"),
                  document("case", "int main(int n) {\n  return n + limit[0x10];\n}\n"),
                  document("number", "int main(int n) {\n  return n + Limit[0x20];\n}\n"), document("none", " \n")});
    const auto looked = run(made, "shingle = 'code:5'\n");
    CHECK(kept_ids(looked) == Ids{"a", "sign", "case", "number", "none"});
    CHECK(looked[0][1].details == R"("kept_id":"a","similarity":1)");
    CHECK(kept_ids(run(made, "")) == Ids{"a", "none"});  // prose has one case, one number and no signs
    std::string longer = file;
    for (int i = 0; i < 40; ++i) longer += fmt::format("void {}() {{}}\n", word(7, static_cast<uint64_t>(i)));
    CHECK(kept_ids(run(one_file({document("a", longer), document("b", longer + "int x;\n")}),
                       "shingle = 'code:5'\n")) == Ids{"a"});
  }

  TEST_CASE("dedup: with scope = source, copies in other sources do not count") {
    const GroupRun made{.files = {{.documents = {document("a", near(1, 0)), document("b", near(1, 2))}},
                                  {.documents = {document("c", near(1, 0)), document("d", near(1, 0))}, .source = 1}},
                        .priorities = {1, 1}};
    CHECK(kept_ids(run(made, "")) == Ids{"a"});
    CHECK(kept_ids(run(made, "scope = 'source'\n")) == Ids{"a", "c"});
  }

  TEST_CASE("dedup: new documents lose to those of an older run, which has its say alone") {
    const ScratchFolder old("dedup-old"), fresh("dedup-new");
    one_file({document("o1", near(1, 0)), document("o2", near(2, 0)), document("o3", near(2, 0))})
        .run(*group_step("dedup", ""), old.path / "work" / "2-dedup");
    const std::string options = fmt::format("against = '{}'\n", old.path.string());
    GroupRun made = one_file({document("n1", near(1, 5)), document("n2", near(3, 0)), document("n3", near(3, 0)),
                              document("n4", near(2, 0))});
    made.priorities = {-9};
    const auto looked = made.run(*group_step("dedup", options), fresh.path);
    CHECK(kept_ids(looked) == Ids{"n2"});
    CHECK(looked[0][0].rule == "near");
    CHECK(looked[0][0].details.starts_with(R"("kept_id":"o1","similarity":0.9)"));
    CHECK(looked[0][2].details == R"("kept_id":"n2","similarity":1)");
    CHECK(looked[0][3].details.starts_with(R"("kept_id":"o2")"));
    CHECK(group_step("dedup", options)->inputs().size() == 1);
    CHECK(group_step("dedup", "")->inputs().empty());
    const auto none = made.run(*group_step("dedup", options + "keep = 'none'\n"), fresh / "none");
    CHECK(kept_ids(none).empty());
    CHECK(none[0][0].details.starts_with(R"("kept_id":"o1")"));
    CHECK(none[0][2].details.starts_with(R"("copy_of":"n2")"));
  }

  TEST_CASE("dedup: of an older run only what it has left takes new documents with it") {
    const ScratchFolder old("dedup-old"), fresh("dedup-new");
    const std::string shape = "bands = 112\nrows = 1\nverify = 'text'\n";
    const GroupRun older = one_file({document("a", near(1, 0)), document("b", near(1, 25)), document("y", near(3, 0)),
                                     document("k", near(4, 0))});  // b goes for a
    const auto old_step = group_step("dedup", shape);
    older.note(*old_step, old.path);
    GroupPlace place = older.place(old.path);
    place.left = [](uint32_t) { return std::vector<bool>{true, true, false, true}; };  // y had gone before
    for (uint32_t part = 0; part < old_step->num_parts(place); ++part) old_step->reduce(place, part);
    old_step->settle(place);
    const std::string options = shape + fmt::format("against = '{}'\n", old.path.string());
    const GroupRun made = one_file(
        {document("c", near(1, 50)), document("B", near(1, 25)), document("Y", near(3, 0)), document("K", near(4, 0))});
    const auto looked = made.run(*group_step("dedup", options), fresh.path);
    CHECK(kept_ids(looked) == Ids{"c", "Y"});
    CHECK(looked[0][1].rule == "near");  // as a, which stayed, and c: the copy b is out
    CHECK(looked[0][3].details.starts_with(R"("kept_id":"k")"));
    std::filesystem::remove(old / "notes/00000000.left");
    CHECK(caught([&] { group_step("dedup", options)->inputs(); }).says("do not say which documents stayed"));
  }

  TEST_CASE("dedup: an older run that kept no shingles is refused before the work, where texts are compared") {
    const ScratchFolder old("dedup-old");
    one_file({document("a", near(1, 0))}).run(*group_step("dedup", ""), old.path);
    const std::string against = fmt::format("against = '{}'\n", old.path.string());
    CHECK(group_step("dedup", against)->inputs().size() == 1);
    const Caught error = caught([&] { group_step("dedup", against + "verify = 'text'\n")->inputs(); });
    CHECK(error.code == 3);
    CHECK(error.says("a run without verify = \"text\", which kept no shingles"));
  }

  TEST_CASE("dedup: an older run that is not there, did not finish or had other options is refused") {
    const ScratchFolder old("dedup-old"), fresh("dedup-new");
    const GroupRun made = one_file({document("a", near(1, 0))});
    const auto against = [&](const std::string& more = "") {
      return caught([&] {
        made.run(*group_step("dedup", fmt::format("against = '{}'\n{}", old.path.string(), more)), fresh.path);
      });
    };
    CHECK(against().says("no signatures of an older run below it"));
    made.note(*group_step("dedup", ""), old / "a");
    CHECK(against().says("did not finish"));
    made.run(*group_step("dedup", ""), old / "a");
    CHECK(against().code == 0);
    CHECK(against("seed = 2\n").says("made with other options"));
    made.run(*group_step("dedup", ""), old / "b");
    CHECK(against().says("signatures of 2 steps below it"));
    CHECK(against().code == 3);
  }

  TEST_CASE("dedup: what is damaged is a bad file, not another decision") {
    const ScratchFolder folder("dedup");
    const GroupRun made = mixed_run();
    const auto step = group_step("dedup", "");
    made.note(*step, folder.path);
    for (const char* name :
         {"00000001.bands.0", "00000001.exact.0", "00000001.values", "00000001.keys", "00000001.ids"}) {
      const std::filesystem::path path = folder.path / "notes" / name;
      const std::string whole = slurp(path);
      for (const size_t at : {whole.size() / 3, whole.size() / 2}) {
        std::string damaged = whole;
        damaged[at] ^= 4;
        for (const std::string& bytes : {damaged, whole.substr(0, at)}) {
          spill(path, bytes);
          std::filesystem::remove_all(folder / "groups");
          std::filesystem::remove_all(folder / "decisions");
          std::filesystem::remove(folder / "clusters.jsonl.zst");
          const Caught error = caught([&] {
            for (uint32_t part = 0; part < step->num_parts(made.place(folder.path)); ++part)
              step->reduce(made.place(folder.path), part);
            step->settle(made.place(folder.path));
          });
          CHECK_MESSAGE(error.code == 3, name);
          CHECK_MESSAGE(error.says(name), error.text);
        }
      }
      spill(path, whole);
    }
  }

  TEST_CASE("dedup: memory that does not hold the documents is refused with the figure that does") {
    GroupRun made = mixed_run();
    made.memory_bytes = 10'000;
    const Caught error = caught([&] { run(made, ""); });
    CHECK(error.code == 2);
    CHECK(error.says("memory: got 9.8 KiB, expected at least 12.9 KiB for 1200 documents"));
  }

  TEST_CASE("dedup: options are checked where they stand") {
    const auto refused = [](const std::string& options, const std::string& says) {
      const Caught error = caught([&] { group_step("dedup", options); });
      CHECK(error.code == 2);
      CHECK_MESSAGE(error.says(":1: " + says), error.text);
    };
    refused("shingle = 'lines:5'", "shingle: got 'lines:5', expected words:<n>, chars:<n> or code:<n>");
    refused("bands = 0", "bands: got 0, expected 1 to 1024");
    refused("rows = 2000", "rows: got 2000, expected 1 to 1024");
    refused("rows = 100", "rows: got 14 bands of 100 values, expected at most 1024 values");
    refused("min_similarity = 0", "min_similarity: got 0, expected a share above 0 and up to 1");
    refused("verify = 'hash'", "verify: got 'hash', expected none, signature, text");
    refused("cluster = 'x'", "cluster: got 'x', expected verified, connected");
    refused("scope = 'x'", "scope: got 'x', expected global, source");
    refused("keep = 'last'", "keep: got 'last', expected first, longest, newest, score:<name> or none");
  }
}

TEST_SUITE("slow") {
  TEST_CASE("dedup: 100,000 equal documents are one star") {
    GroupRun made{.files = std::vector<GroupFile>(4)};
    for (uint64_t i = 0; i < 100'000; ++i)
      made.files[i % 4].documents.push_back(document(std::to_string(i), "the same few words in each of them"));
    made.memory_bytes = 2'000'000;
    const auto looked = run(made, "");
    CHECK(kept_ids(looked) == Ids{"0"});
    CHECK(find_metadata(looked[0][0].document, "copies") == Json(100'000));
  }
}
