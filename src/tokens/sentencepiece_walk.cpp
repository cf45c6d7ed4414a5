// Field numbers are those of sentencepiece_model.proto: ModelProto {1 pieces {1 piece, 2 score, 3 type}, 2
// trainer_spec, 3 normalizer_spec, 5 denormalizer_spec}; trainer_spec {3 model_type, 24 treat_whitespace_as_suffix, 35
// byte_fallback}; normalizer_spec {2 precompiled_charsmap, 3 add_dummy_prefix, 4 remove_extra_whitespaces, 5
// escape_whitespaces}.
#include "src/tokens/sentencepiece_walk.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <unordered_set>

#include "src/base/errors.h"

namespace coppice {

namespace {

constexpr size_t kMaxPieces = size_t{1} << 20;
constexpr size_t kMaxPieceBytes = 1024;
// Behind a model's bytes: normalizer_spec {add_dummy_prefix: false}, which protobuf merges into the settings before it.
constexpr std::string_view kNoDummyPrefix("\x1A\x02\x18\x00", 4);

struct ProtoField {
  uint64_t number = 0;
  uint64_t varint = 0;     // wire type 0
  std::string_view bytes;  // wire types 1, 2, 5
  unsigned wire_type = 0;
};

/// Reads field after field of one message; every length is compared with the bytes that are left.
class ProtoReader {
 public:
  ProtoReader(std::string_view bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  bool next(ProtoField& field) {
    if (at_ == bytes_.size()) return false;
    const uint64_t key = varint();
    field = {};
    field.number = key >> 3;
    field.wire_type = static_cast<unsigned>(key & 7);
    switch (field.wire_type) {
      case 0:
        field.varint = varint();
        break;
      case 1:
        field.bytes = take(8);
        break;
      case 2:
        field.bytes = take(varint());
        break;
      case 5:
        field.bytes = take(4);
        break;
      default:
        fail(fmt::format("wire type {}", field.wire_type));
    }
    if (field.number == 0) fail("field number 0");
    return true;
  }
  size_t position() const { return at_; }  // behind the last field

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw UserError::bad_file(path_, fmt::format("damaged SentencePiece model: {} at byte {} of a message", what, at_));
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
      if (at_ == bytes_.size()) fail("a number is cut off");
      const auto byte = static_cast<unsigned char>(bytes_[at_++]);
      if (shift == 63 && byte > 1) fail("a number above 64 bits");
      value |= uint64_t{byte & 0x7Fu} << shift;
      if ((byte & 0x80u) == 0) return value;
    }
    fail("a number above 64 bits");
  }

  std::string_view take(uint64_t length) {
    if (length > bytes_.size() - at_)
      fail(fmt::format("a field of {} bytes with {} left", length, bytes_.size() - at_));
    const std::string_view result = bytes_.substr(at_, length);
    at_ += length;
    return result;
  }

  std::string_view bytes_;
  const std::string& path_;
  size_t at_ = 0;
};

[[noreturn]] void refuse(const std::string& path, const std::string& message) {
  throw UserError::bad_file(path, "SentencePiece model: " + message);
}

void expect(const std::string& path, const ProtoField& field, unsigned wire_type, const char* name) {
  if (field.wire_type != wire_type)
    refuse(path, fmt::format("{} has wire type {}, expected {}", name, field.wire_type, wire_type));
}

Piece read_piece(std::string_view bytes, const std::string& path, size_t id) {
  Piece piece;
  ProtoReader reader(bytes, path);
  for (ProtoField field; reader.next(field);) {
    if (field.number == 1) {
      expect(path, field, 2, "piece");
      piece.text = std::string(field.bytes.substr(0, kMaxPieceBytes + 1));
    } else if (field.number == 2) {
      expect(path, field, 5, "score");
      std::memcpy(&piece.score, field.bytes.data(), 4);
    } else if (field.number == 3) {
      expect(path, field, 0, "type");
      if (field.varint < 1 || field.varint > 6)
        refuse(path, fmt::format("piece {} has type {}, expected 1 to 6", id, field.varint));
      piece.type = static_cast<PieceType>(field.varint);
    }
  }
  if (piece.text.empty()) refuse(path, fmt::format("piece {} is empty", id));
  if (piece.text.size() > kMaxPieceBytes)
    refuse(path, fmt::format("piece {} is longer than {} bytes", id, kMaxPieceBytes));
  if (piece.text.find('\0') != std::string::npos) refuse(path, fmt::format("piece {} contains NUL", id));
  if (!simdjson::validate_utf8(piece.text)) refuse(path, fmt::format("piece {} is not valid UTF-8", id));
  if (!std::isfinite(piece.score)) refuse(path, fmt::format("piece {} has a score that is not finite", id));
  return piece;
}

void read_trainer_spec(std::string_view bytes, const std::string& path, uint64_t& model_type, bool& byte_fallback) {
  ProtoReader reader(bytes, path);
  for (ProtoField field; reader.next(field);) {
    if (field.number == 3) {
      expect(path, field, 0, "model_type");
      model_type = field.varint;
    } else if (field.number == 35) {
      expect(path, field, 0, "byte_fallback");
      byte_fallback = field.varint != 0;
    } else if (field.number == 24) {
      expect(path, field, 0, "treat_whitespace_as_suffix");
      if (field.varint != 0) refuse(path, "treat_whitespace_as_suffix is on, which is not supported");
    }
  }
}

/// Whether add_dummy_prefix is on. Without the other settings decode(encode(text)) is not the text.
bool read_normalizer(std::string_view bytes, const std::string& path) {
  bool add_dummy_prefix = true, remove_extra_whitespaces = true, escape_whitespaces = true;  // protobuf defaults
  ProtoReader reader(bytes, path);
  for (ProtoField field; reader.next(field);) {
    if (field.number == 2) {
      expect(path, field, 2, "precompiled_charsmap");
      if (!field.bytes.empty())
        refuse(path, "it holds a precompiled_charsmap (a normaliser other than identity), which is not supported");
    } else if (field.number >= 3 && field.number <= 5) {
      expect(path, field, 0, "a switch of the normaliser");
      (field.number == 3   ? add_dummy_prefix
       : field.number == 4 ? remove_extra_whitespaces
                           : escape_whitespaces) = field.varint != 0;
    }
  }
  if (remove_extra_whitespaces)
    refuse(path, "remove_extra_whitespaces is on, which is not supported (text would lose spaces)");
  if (!escape_whitespaces) refuse(path, "escape_whitespaces is off, which is not supported");
  return add_dummy_prefix;
}

/// The denormaliser must do nothing: no rules.
void check_denormalizer(std::string_view bytes, const std::string& path) {
  ProtoReader reader(bytes, path);
  for (ProtoField field; reader.next(field);)
    if (field.number == 2 && !field.bytes.empty()) refuse(path, "it holds a denormaliser, which is not supported");
}

void check_pieces(const std::vector<Piece>& pieces, const std::string& path) {
  std::unordered_set<std::string_view> names;
  std::vector<bool> has_byte(256, false);
  size_t num_unknown = 0;
  for (size_t id = 0; id < pieces.size(); ++id) {
    const Piece& piece = pieces[id];
    if (!names.insert(piece.text).second)
      refuse(path, fmt::format("piece {} ('{}') occurs twice", id, printable(piece.text)));
    num_unknown += piece.type == PieceType::unknown;
    if (piece.type != PieceType::byte) continue;
    const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; };
    const std::string& text = piece.text;
    const bool is_exact =
        text.size() == 6 && text.starts_with("<0x") && text[5] == '>' && digit(text[3]) >= 0 && digit(text[4]) >= 0;
    if (!is_exact)
      refuse(path, fmt::format("byte piece {} is named '{}', expected <0x00> to <0xFF>", id, printable(text)));
    has_byte[static_cast<size_t>(digit(text[3]) * 16 + digit(text[4]))] = true;
  }
  if (num_unknown != 1) refuse(path, fmt::format("{} unknown pieces, expected one", num_unknown));
  if (std::find(has_byte.begin(), has_byte.end(), false) != has_byte.end())
    refuse(path, "some of the 256 byte pieces are missing");
}

}  // namespace

SentencePieceModel walk_sentencepiece_model(std::string_view bytes, const std::string& path) {
  if (bytes.size() > kMaxModelBytes)
    refuse(path, fmt::format("{} bytes, the limit is {}", bytes.size(), kMaxModelBytes));
  SentencePieceModel model;
  std::vector<Piece>& pieces = model.pieces;
  uint64_t model_type = 1;  // protobuf default: unigram
  bool byte_fallback = false, has_normalizer = false;
  ProtoReader reader(bytes, path);
  size_t begin = 0;
  for (ProtoField field; reader.next(field); begin = reader.position()) {
    if (field.number != 4) model.library_bytes += bytes.substr(begin, reader.position() - begin);
    if (field.number > 5) continue;  // extensions
    expect(path, field, 2, "a field of the model");
    if (field.number == 1) {
      if (pieces.size() == kMaxPieces) refuse(path, fmt::format("more than {} pieces", kMaxPieces));
      pieces.push_back(read_piece(field.bytes, path, pieces.size()));
    } else if (field.number == 2) {
      read_trainer_spec(field.bytes, path, model_type, byte_fallback);
    } else if (field.number == 3) {
      if (has_normalizer) refuse(path, "two normaliser settings");
      has_normalizer = true;
      model.add_dummy_prefix = read_normalizer(field.bytes, path);
    } else if (field.number == 5) {
      check_denormalizer(field.bytes, path);
    }
  }
  if (pieces.empty()) refuse(path, "no pieces");
  if (model_type != 2) refuse(path, fmt::format("model_type {}, expected 2 (BPE)", model_type));
  if (!byte_fallback) refuse(path, "byte_fallback is off, which is not supported (rare characters would be lost)");
  if (!has_normalizer) refuse(path, "no normaliser settings");
  check_pieces(pieces, path);
  if (model.add_dummy_prefix) model.library_bytes += kNoDummyPrefix;
  return model;
}

}  // namespace coppice
