#include "src/text/document_metadata.h"

#include <nlohmann/json.hpp>

namespace coppice {
namespace {

constexpr std::string_view kBlanks = " \t\r\n";

/// A member as it stands: the name in its quotes, the value behind the colon.
struct Member {
  std::string_view name, value;
};

/// Takes `"a":1,"b":[NaN]` apart. Values are not looked into: they may hold what Python and others write beside JSON,
/// NaN or 1e400, and whoever asks for another member has no use for them. What is no member ends the reading.
class MemberReader {
 public:
  explicit MemberReader(std::string_view members) : members_(members) {}

  bool next(Member& member) {
    size_t at = members_.find_first_not_of(", \t\r\n", at_);
    if (at == std::string_view::npos || members_[at] != '"') return false;
    const size_t name = at;
    at = string_end(name);
    member.name = members_.substr(name, at - name);
    at = members_.find_first_not_of(kBlanks, at);
    if (at == std::string_view::npos || members_[at] != ':') return false;
    const size_t value = std::min(members_.find_first_not_of(kBlanks, at + 1), members_.size());
    at_ = value_end(value);
    member.value = members_.substr(value, at_ - value);
    member.value = member.value.substr(0, member.value.find_last_not_of(kBlanks) + 1);
    return !member.value.empty();
  }

 private:
  size_t string_end(size_t at) const {
    for (++at; at < members_.size() && members_[at] != '"'; ++at) at += members_[at] == '\\';
    return std::min(at + 1, members_.size());
  }
  size_t value_end(size_t at) const {
    for (size_t depth = 0; at < members_.size(); ++at) {
      const char c = members_[at];
      if (c == '"') {
        at = string_end(at) - 1;
      } else if (c == '[' || c == '{') {
        ++depth;
      } else if (c == ']' || c == '}') {
        if (depth-- == 0) break;
      } else if (c == ',' && depth == 0) {
        break;
      }
    }
    return std::min(at, members_.size());
  }

  std::string_view members_;
  size_t at_ = 0;
};

bool is_named(const Member& member, std::string_view name) {
  if (member.name.find('\\') == std::string_view::npos)
    return member.name.size() == name.size() + 2 && member.name.substr(1, name.size()) == name;
  const Json read = Json::parse(member.name, nullptr, /*allow_exceptions=*/false);
  return read.is_string() && read.get_ref<const std::string&>() == name;
}

/// Of several of one name the last, as most readers of JSON have it; nothing for what is no value of JSON.
std::optional<Json> find_in(std::string_view members, std::string_view name) {
  if (members.find(name) == std::string_view::npos && members.find('\\') == std::string_view::npos) return std::nullopt;
  std::string_view value;
  MemberReader reader(members);
  for (Member member; reader.next(member);)
    if (is_named(member, name)) value = member.value;
  Json read = Json::parse(value, nullptr, /*allow_exceptions=*/false);
  return read.is_discarded() ? std::nullopt : std::optional<Json>(std::move(read));
}

std::string to_text(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

void set_metadata(Document& document, std::string_view name, const Json& value) {
  const std::string_view members = document.metadata;
  const auto end_of = [&](std::string_view part) { return static_cast<size_t>(part.end() - members.begin()); };
  std::string all;
  size_t copied = 0, before = 0;  // the end of what stands in `all`, and of the member before
  bool is_set = false;
  MemberReader reader(members);
  for (Member member; reader.next(member); before = end_of(member.value)) {
    if (!is_named(member, name)) continue;
    const size_t end = end_of(member.value);
    if (is_set)
      all += members.substr(copied, before - copied);  // others of the name go, with the comma in front
    else
      (all += members.substr(copied, end - member.value.size() - copied)) += to_text(value);
    copied = end;
    is_set = true;
  }
  all += members.substr(copied);
  if (!is_set) ((all += all.empty() ? "" : ",") += to_text(Json(std::string(name))) + ":") += to_text(value);
  document.metadata = std::move(all);
}

std::optional<Json> find_metadata(const Document& document, std::string_view name) {
  return find_in(document.metadata, name);
}

std::string metadata_text(const Document& document, std::string_view name) {
  const std::optional<Json> found = find_metadata(document, name);
  return found && found->is_string() ? found->get<std::string>() : std::string();
}

std::optional<Json> find_member(const Document& document, std::initializer_list<std::string_view> names) {
  for (const std::string_view members : {std::string_view(document.metadata), std::string_view(document.fields)})
    for (const std::string_view name : names)
      if (std::optional<Json> found = find_in(members, name); found && !found->is_null()) return found;
  return std::nullopt;
}

std::string member_text(const Document& document, std::string_view name) {
  for (const std::string_view members : {std::string_view(document.metadata), std::string_view(document.fields)})
    if (const std::optional<Json> found = find_in(members, name); found && found->is_string() && *found != "")
      return found->get<std::string>();
  return {};
}

}  // namespace coppice
