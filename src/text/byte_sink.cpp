#include "src/text/byte_sink.h"

#include <zstd.h>

#include <algorithm>
#include <vector>

#include "src/base/errors.h"
#include "src/base/files.h"

namespace coppice {

namespace {
// ByteSource takes a file that unpacks to more than 1000 times its size for a bomb. Where what is written repeats
// itself nearly as often, blocks are ended early: one of a KiB has four bytes and more. So every beginning of a file
// stays below 600, and ordinary text is packed as ever.
constexpr uint64_t kRatio = 500, kFreeBytes = uint64_t{1} << 19;
constexpr size_t kPiece = size_t{1} << 16, kSmallBlock = size_t{1} << 10;
}  // namespace

struct ByteSink::State {
  State(std::filesystem::path final_path, Coding coding, int level)
      : path(std::move(final_path)), temporary(temporary_path(path)), file(temporary, OutputFile::Mode::create) {
    if (coding == Coding::plain) return;
    zstd = ZSTD_createCCtx();
    COPPICE_CHECK(zstd != nullptr, "zstd context");
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, level);
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_checksumFlag, 1);
    output.resize(ZSTD_CStreamOutSize());
  }
  ~State() {
    ZSTD_freeCCtx(zstd);
    std::error_code ignored;
    if (!committed) std::filesystem::remove(temporary, ignored);
  }

  void pack(std::string_view bytes) {
    while (!bytes.empty()) {  // up to the next multiple of kPiece: the same bytes however they come
      const size_t here = std::min<size_t>(bytes.size(), kPiece - taken % kPiece);
      if (taken % kPiece == 0) dense = taken >= kFreeBytes && taken / kRatio > given;
      for (size_t at = 0; at < here;) {
        const size_t block = dense ? std::min<size_t>(here - at, kSmallBlock - taken % kSmallBlock) : here;
        taken += block;
        compress(bytes.substr(at, block), dense && taken % kSmallBlock == 0 ? ZSTD_e_flush : ZSTD_e_continue);
        at += block;
      }
      bytes.remove_prefix(here);
    }
  }

  void compress(std::string_view bytes, ZSTD_EndDirective directive) {
    ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
    for (;;) {
      ZSTD_outBuffer out{output.data(), output.size(), 0};
      const size_t left = ZSTD_compressStream2(zstd, &out, &in, directive);
      COPPICE_CHECK(!ZSTD_isError(left), ZSTD_getErrorName(left));
      if (out.pos > 0) file.write({output.data(), out.pos});
      given += out.pos;
      if (directive == ZSTD_e_continue ? in.pos == in.size : left == 0) return;
    }
  }

  std::filesystem::path path, temporary;
  OutputFile file;
  ZSTD_CCtx* zstd = nullptr;  // plain without
  std::vector<char> output;
  uint64_t taken = 0, given = 0;  // bytes before and after packing
  bool dense = false;             // blocks are ended early
  bool committed = false;
};

ByteSink::ByteSink(std::filesystem::path path, Coding coding, int level)
    : state_(std::make_unique<State>(std::move(path), coding, level)) {}
ByteSink::~ByteSink() = default;

void ByteSink::write(std::string_view bytes) {
  if (state_->zstd == nullptr) {
    state_->file.write(bytes);
  } else {
    state_->pack(bytes);
  }
}

void ByteSink::commit() {
  if (state_->zstd != nullptr) state_->compress({}, ZSTD_e_end);
  state_->file.sync();
  state_->file.close();
  commit_rename(state_->temporary, state_->path);
  state_->committed = true;
}

}  // namespace coppice
