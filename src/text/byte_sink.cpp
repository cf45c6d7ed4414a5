#include "src/text/byte_sink.h"

#include <zstd.h>

#include <vector>

#include "src/base/errors.h"
#include "src/base/files.h"

namespace coppice {

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

  void compress(std::string_view bytes, ZSTD_EndDirective directive) {
    ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
    for (;;) {
      ZSTD_outBuffer out{output.data(), output.size(), 0};
      const size_t left = ZSTD_compressStream2(zstd, &out, &in, directive);
      COPPICE_CHECK(!ZSTD_isError(left), ZSTD_getErrorName(left));
      if (out.pos > 0) file.write({output.data(), out.pos});
      if (directive == ZSTD_e_end ? left == 0 : in.pos == in.size) return;
    }
  }

  std::filesystem::path path, temporary;
  OutputFile file;
  ZSTD_CCtx* zstd = nullptr;  // plain without
  std::vector<char> output;
  bool committed = false;
};

ByteSink::ByteSink(std::filesystem::path path, Coding coding, int level)
    : state_(std::make_unique<State>(std::move(path), coding, level)) {}
ByteSink::~ByteSink() = default;

void ByteSink::write(std::string_view bytes) {
  if (state_->zstd == nullptr) {
    state_->file.write(bytes);
  } else {
    state_->compress(bytes, ZSTD_e_continue);
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
