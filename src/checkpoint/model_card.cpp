#include "src/checkpoint/model_card.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/base/yaml.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxFrontMatter = size_t{256} << 10, kMaxLicense = size_t{4} << 10, kMaxText = 1024;
constexpr const char* kLicenseFiles[] = {"LICENSE", "LICENSE.txt", "LICENSE.md"};

struct LicenseWords {
  const char *id, *words;  // in small letters, one space between two
};
constexpr LicenseWords kLicenses[] = {
    {"apache-2.0", "apache license version 2.0"},
    {"mit", "permission is hereby granted, free of charge, to any person obtaining a copy of this software"}};

std::string first_bytes(const fs::path& file, size_t count) {
  std::string bytes(count, '\0');
  std::ifstream stream(file, std::ios::binary);
  stream.read(bytes.data(), static_cast<std::streamsize>(count));
  bytes.resize(static_cast<size_t>(stream.gcount()));
  return bytes;
}

std::string_view trimmed(std::string_view line) {
  const size_t first = line.find_first_not_of(" \t\r#*"), last = line.find_last_not_of(" \t\r#*");
  return first == std::string_view::npos ? "" : line.substr(first, last - first + 1);
}

/// The text up to the line that ends its front matter; empty where it begins with none.
std::string front_matter(std::string_view text, const std::string& where) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  if (!text.starts_with("---\n") && !text.starts_with("---\r\n")) return "";
  for (size_t begin = text.find('\n') + 1; begin < std::min(text.size(), kMaxFrontMatter);) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    if (const std::string_view line = text.substr(begin, end - begin); line == "---" || line == "---\r")
      return std::string(text.substr(0, begin));
    begin = end + 1;
  }
  throw UserError::bad_file(where, fmt::format("the line --- that ends its front matter is missing in the first {} KiB",
                                               kMaxFrontMatter >> 10));
}

/// What can be repeated in a report and in another card; empty otherwise.
std::string one_line(const Json& value) {
  if (!value.is_string()) return "";
  const std::string& text = value.get_ref<const std::string&>();
  return text.size() <= kMaxText && printable(text) == text ? text : "";
}

/// One text, or several with commas between them.
std::string one_or_more(const Json& value) {
  if (!value.is_array()) return one_line(value);
  std::string joined;
  for (const Json& one : value)
    if (const std::string text = one_line(one); !text.empty()) joined += (joined.empty() ? "" : ",") + text;
  return one_line(joined);
}

/// "organization/name", a name, or an address.
GgufReference reference_to(const std::string& model) {
  const size_t slash = model.rfind('/');
  if (slash == std::string::npos) return {.name = model};
  if (model.find("://") != std::string::npos) return {.name = model.substr(slash + 1), .repo_url = model};
  return {.name = model.substr(slash + 1), .organization = model.substr(0, slash)};
}

void read_license_file(const fs::path& folder, GgufGeneral& general) {
  std::error_code error;
  const auto file =
      std::ranges::find_if(kLicenseFiles, [&](const char* name) { return fs::is_regular_file(folder / name, error); });
  if (file == std::end(kLicenseFiles)) return;
  const std::string text = first_bytes(folder / *file, kMaxLicense);
  std::string words, first_line;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isspace(byte) == 0)
      words += static_cast<char>(std::tolower(byte));
    else if (!words.empty() && words.back() != ' ')
      words += ' ';
  }
  for (size_t begin = 0; begin < text.size() && first_line.empty();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    first_line = trimmed(std::string_view(text).substr(begin, end - begin));
    begin = end + 1;
  }
  if (first_line.empty()) return;
  const auto known = std::ranges::find_if(
      kLicenses, [&](const LicenseWords& license) { return words.find(license.words) != std::string::npos; });
  general.license = known != std::end(kLicenses) ? known->id : "other";
  if (general.license == "other") general.license_name = one_line(first_line);
}

}  // namespace

GgufGeneral parse_model_card(std::string_view text, const std::string& where) {
  const std::string yaml = front_matter(text, where);
  const Json card = yaml.empty() ? Json() : parse_yaml(yaml, where);
  if (!card.is_object()) return {};
  const auto text_at = [&](const char* key) { return one_or_more(card.value(key, Json())); };
  GgufGeneral general{.name = text_at("model_name"),
                      .license = text_at("license"),
                      .license_name = text_at("license_name"),
                      .license_link = text_at("license_link")};
  if (general.name.empty()) general.name = text_at("name");
  if (general.license_link.find("://") == std::string::npos) general.license_link.clear();  // a file that stays behind
  const Json bases = card.value("base_model", card.value("base_models", Json()));
  for (const Json& base : bases.is_array() ? bases : Json::array({bases}))
    if (const std::string model = one_line(base); !model.empty() && general.base_models.size() < kMaxGgufReferences)
      general.base_models.push_back(reference_to(model));
  return general;
}

GgufGeneral read_model_card(const fs::path& folder) {
  GgufGeneral general;
  const fs::path file = folder / kModelCardFile;
  std::error_code error;
  try {
    if (fs::is_regular_file(file, error))
      general = parse_model_card(first_bytes(file, kMaxFrontMatter + 1), file.string());
  } catch (const UserError& cause) {
    log_warning(fmt::format("{}; what it says of the model's license and origin is not kept", cause.what()));
  }
  if (general.license.empty()) read_license_file(folder, general);
  return general;
}

std::string model_id(const GgufReference& model) {
  return model.organization.empty() ? model.name : model.organization + "/" + model.name;
}

std::string model_card_text(const GgufGeneral& general) {
  if (general.license.empty()) return "";
  std::string front;  // JSON texts are YAML texts
  for (const auto& [key, value] : {std::pair{"license", &general.license},
                                   {"license_name", &general.license_name},
                                   {"license_link", &general.license_link},
                                   {"model_name", &general.name}})
    if (!value->empty()) front += fmt::format("{}: {}\n", key, Json(*value).dump());
  Json bases = Json::array();
  for (const GgufReference& base : general.base_models) bases.push_back(model_id(base));
  if (!bases.empty()) front += fmt::format("base_model: {}\n", bases.dump());
  const std::string source = bases.empty() ? "a model" : bases.front().get<std::string>();
  return fmt::format("---\n{}---\n\n# {}\n\nMade by coppice from {}, whose license is {}.\n", front,
                     general.name.empty() ? "model" : general.name, source,
                     general.license_name.empty() ? general.license : general.license_name);
}

}  // namespace coppice
