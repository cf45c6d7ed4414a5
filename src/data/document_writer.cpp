// Documents out: one JSON object a line, zstd with content checksums, committed by rename.
#include <fmt/format.h>
#include <simdjson.h>
#include <zstd.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/json.h"
#include "src/data/documents.h"

namespace coppice {

struct DocumentWriter::State {
  explicit State(std::filesystem::path final_path)
      : path(std::move(final_path)),
        temporary(temporary_path(path)),
        file(temporary, OutputFile::Mode::create),
        zstd(ZSTD_createCCtx()),
        output(ZSTD_CStreamOutSize()) {
    COPPICE_CHECK(zstd != nullptr, "zstd context");
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, 3);
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_checksumFlag, 1);
  }
  ~State() { ZSTD_freeCCtx(zstd); }

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
  ZSTD_CCtx* zstd;
  std::vector<char> output;
  uint64_t text_bytes = 0;
  bool committed = false;
};

DocumentWriter::DocumentWriter(std::filesystem::path path) : state_(std::make_unique<State>(std::move(path))) {}

DocumentWriter::~DocumentWriter() {
  if (state_->committed) return;
  std::error_code ignored;
  std::filesystem::remove(state_->temporary, ignored);
}

void DocumentWriter::write(const Document& document) {
  COPPICE_CHECK(simdjson::validate_utf8(document.text), "document text is not UTF-8: " + document.id);
  const auto quoted = [](const std::string& text) { return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace); };
  state_->compress(fmt::format("{{\"id\":{},\"source\":{},\"text\":{},\"metadata\":{{\"license\":{}}}}}\n", quoted(document.id), quoted(document.source),
                               quoted(document.text), quoted(document.license)),
                   ZSTD_e_continue);
  state_->text_bytes += document.text.size();
}

void DocumentWriter::commit() {
  state_->compress({}, ZSTD_e_end);
  state_->file.sync();
  state_->file.close();
  commit_rename(state_->temporary, state_->path);
  state_->committed = true;
}

uint64_t DocumentWriter::text_bytes() const { return state_->text_bytes; }

}  // namespace coppice
