// SHA-256 through OpenSSL's EVP interface, which uses the machine's SHA instructions.
#include <openssl/evp.h>

#include "src/base/errors.h"
#include "src/base/files.h"

namespace coppice {

struct Sha256::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(evp); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  COPPICE_CHECK(context_->evp != nullptr && EVP_DigestInit_ex(context_->evp, EVP_sha256(), nullptr) == 1,
                "OpenSSL has no SHA-256");
}
Sha256::~Sha256() = default;

void Sha256::update(std::string_view bytes) {
  COPPICE_CHECK(EVP_DigestUpdate(context_->evp, bytes.data(), bytes.size()) == 1, "SHA-256 failed");
}

std::string Sha256::hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  COPPICE_CHECK(EVP_DigestFinal_ex(context_->evp, digest, &size) == 1, "SHA-256 failed or finished twice");
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (unsigned int i = 0; i < size; ++i) {
    text += kDigits[digest[i] >> 4];
    text += kDigits[digest[i] & 15];
  }
  return text;
}

std::string sha256_hex(std::string_view bytes) {
  Sha256 sha;
  sha.update(bytes);
  return sha.hex();
}

}  // namespace coppice
