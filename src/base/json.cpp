// Strict JSON: nlohmann's parser drives a SAX handler that refuses what its DOM parser lets pass (duplicate keys, any
// depth, text after a NUL byte).
#include "src/base/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "src/base/errors.h"
#include "src/base/files.h"

namespace coppice {
namespace {

constexpr size_t kMaxDepth = 64;
constexpr std::string_view kSealKey = ",\"sha256\":\"", kSealEnd = "\"}\n";
constexpr size_t kHexDigits = 64;

/// Builds the value while it is parsed. Returning false ends the parse; `error` says why.
struct StrictBuilder : nlohmann::json_sax<Json> {
  Json result;
  std::vector<Json*> open;  // containers from the root to where we are
  Json* slot = nullptr;     // where the value of the last key goes
  std::string error;

  Json* put(Json value) {
    if (open.empty()) {
      result = std::move(value);
      return &result;
    }
    if (open.back()->is_array()) {
      open.back()->push_back(std::move(value));
      return &open.back()->back();
    }
    *slot = std::move(value);
    return slot;
  }
  bool enter(Json container) {
    if (open.size() == kMaxDepth) {
      error = fmt::format("nested deeper than {} levels", kMaxDepth);
      return false;
    }
    open.push_back(put(std::move(container)));
    return true;
  }
  bool leave() {
    open.pop_back();
    return true;
  }

  bool null() override { return put(nullptr) != nullptr; }
  bool boolean(bool value) override { return put(value) != nullptr; }
  bool number_integer(number_integer_t value) override { return put(value) != nullptr; }
  bool number_unsigned(number_unsigned_t value) override { return put(value) != nullptr; }
  bool number_float(number_float_t value, const string_t&) override { return put(value) != nullptr; }
  bool string(string_t& value) override { return put(std::move(value)) != nullptr; }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return enter(Json::object()); }
  bool start_array(size_t) override { return enter(Json::array()); }
  bool end_object() override { return leave(); }
  bool end_array() override { return leave(); }
  bool key(string_t& name) override {
    const auto [entry, fresh] = open.back()->emplace(name, nullptr);
    if (!fresh) error = fmt::format("the key \"{}\" appears twice in one object", printable(name.substr(0, 100)));
    slot = &*entry;
    return fresh;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& cause) override {
    std::string_view text = cause.what();  // "[json.exception.parse_error.101] parse error at line 1, column 3: ..."
    if (const size_t end = text.find("] "); end != std::string_view::npos) text.remove_prefix(end + 2);
    error = fmt::format("byte {}: {}", position, printable(text));
    return false;
  }
};

bool holds_float(const Json& value) {
  return value.is_number_float() || (value.is_structured() && std::ranges::any_of(value, holds_float));
}

Json canonical(const Json& value) {
  if (value.is_number_float()) return fmt::format("{}", value.get<double>());
  if (value.is_object()) {
    Json out = Json::object();
    for (const auto& [name, member] : value.items()) out[name] = canonical(member);
    return out;
  }
  if (value.is_array()) {
    Json out = Json::array();
    for (const Json& element : value) out.push_back(canonical(element));
    return out;
  }
  return value;
}

/// Bytes that are no UTF-8 become U+FFFD instead of an exception.
std::string dump(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

const Json& member_at(const Json& object, const char* key, std::string_view path) {
  if (!object.is_object())
    throw UserError::bad_file(path, fmt::format("expected a JSON object with the key \"{}\"", key));
  const auto found = object.find(key);
  if (found == object.end()) throw UserError::bad_file(path, fmt::format("the key \"{}\" is missing", key));
  return *found;
}

UserError wrong_type(std::string_view path, const char* key, const Json& value, const char* expected) {
  std::string got = printable(dump(value).substr(0, 80));
  return UserError::bad_file(path, fmt::format("\"{}\": got {}, expected {}", key, got, expected));
}

}  // namespace

Json parse_json(std::string_view text, std::string_view path) {
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos)  // the parser would take it for the end
    throw UserError::bad_file(path, fmt::format("JSON: byte {}: a NUL byte", nul));
  StrictBuilder builder;
  if (!Json::sax_parse(text.begin(), text.end(), &builder, Json::input_format_t::json, true))
    throw UserError::bad_file(path, "JSON: " + (builder.error.empty() ? "cannot be parsed" : builder.error));
  return std::move(builder.result);
}

Json read_json(const std::filesystem::path& path, uint64_t max_bytes) {
  return parse_json(read_file(path, max_bytes), path.native());
}

std::string fingerprint(const Json& value) {
  return sha256_hex(dump(holds_float(value) ? canonical(value) : value));  // a copy of a vocabulary takes its time
}

std::string seal(const Json& object) {
  COPPICE_CHECK(object.is_object() && !object.empty() && !object.contains("sha256"),
                "only an object without a seal can be sealed");
  std::string text = dump(object);
  text.pop_back();  // the closing brace
  const std::string digest = sha256_hex(text);
  return text.append(kSealKey).append(digest).append(kSealEnd);
}

Json read_sealed(const std::filesystem::path& path, std::string_view format, int version) {
  const std::string text = read_file(path, uint64_t{64} << 20);
  const std::string_view name = path.native();
  constexpr size_t kTail = kSealKey.size() + kHexDigits + kSealEnd.size();
  if (text.size() <= kTail || !text.ends_with(kSealEnd))
    throw UserError::bad_file(name, "the seal (\"sha256\" as the last member) is missing: cut off or damaged");
  const std::string_view body = std::string_view(text).substr(0, text.size() - kTail);
  const std::string_view tail = std::string_view(text).substr(body.size());
  const std::string_view stated = tail.substr(kSealKey.size(), kHexDigits);
  const std::string actual = sha256_hex(body);
  if (!tail.starts_with(kSealKey) || stated != actual)
    throw UserError::bad_file(
        name, fmt::format("the seal does not hold: the file says {}, its bytes give {}: damaged or edited",
                          printable(stated), actual));
  Json object = parse_json(text, name);
  const std::string found_format = string_at(object, "format", name);
  const uint64_t found_version = unsigned_at(object, "version", name);
  if (found_format != format || found_version > static_cast<uint64_t>(version))
    throw UserError::bad_file(name, fmt::format("got format \"{}\" version {}, expected \"{}\" up to version {}",
                                                printable(found_format), found_version, format, version));
  object.erase("sha256");
  return object;
}

uint64_t unsigned_at(const Json& object, const char* key, std::string_view path) {
  const Json& value = member_at(object, key, path);
  // A literal parsed from text is unsigned whenever it is not negative; one built in the program may be a signed type.
  if (value.is_number_unsigned() || (value.is_number_integer() && value.get<int64_t>() >= 0))
    return value.get<uint64_t>();
  throw wrong_type(path, key, value, "an integer from 0");
}

std::string string_at(const Json& object, const char* key, std::string_view path) {
  const Json& value = member_at(object, key, path);
  if (!value.is_string()) throw wrong_type(path, key, value, "a string");
  return value.get<std::string>();
}

double number_at(const Json& object, const char* key, std::string_view path) {
  const Json& value = member_at(object, key, path);
  if (!value.is_number()) throw wrong_type(path, key, value, "a number");
  return value.get<double>();
}

const Json& array_at(const Json& object, const char* key, std::string_view path) {
  const Json& value = member_at(object, key, path);
  if (!value.is_array()) throw wrong_type(path, key, value, "an array");
  return value;
}

const Json& object_at(const Json& object, const char* key, std::string_view path) {
  const Json& value = member_at(object, key, path);
  if (!value.is_object()) throw wrong_type(path, key, value, "an object");
  return value;
}

}  // namespace coppice
