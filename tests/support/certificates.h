#pragma once

#include <cstdlib>
#include <memory>
#include <string>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

namespace peerchunk::test {

// A certificate authority that exists for one test, and the certificates that it signs. Keys are
// made afresh, so none lies in the source tree.
class TestAuthority {
 public:
  struct Identity {
    std::string certificate;  // PEM.
    std::string key;
  };

  TestAuthority() : key_(EVP_EC_gen("P-256")), certificate_(Sign(key_.get(), "CA:TRUE", "")) {}

  std::string Pem() const { return ToPem(certificate_.get()); }

  // `names` as openssl writes them: "DNS:a.test,IP:127.0.0.1".
  Identity Issue(const std::string& names) const {
    const Key key(EVP_EC_gen("P-256"));
    const Certificate certificate = Sign(key.get(), "CA:FALSE", names);
    BIO* const out = BIO_new(BIO_s_mem());
    Require(PEM_write_bio_PrivateKey(out, key.get(), nullptr, nullptr, 0, nullptr, nullptr));
    return {.certificate = ToPem(certificate.get()), .key = Take(out)};
  }

 private:
  template <auto Free>
  struct Deleter {
    template <typename T>
    void operator()(T* object) const {
      Free(object);
    }
  };
  using Key = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;
  using Certificate = std::unique_ptr<X509, Deleter<X509_free>>;

  static void Require(bool done) {
    if (!done) std::abort();
  }

  static std::string Take(BIO* bio) {
    char* data = nullptr;
    const long size = BIO_get_mem_data(bio, &data);
    std::string text(data, static_cast<size_t>(size));
    BIO_free(bio);
    return text;
  }

  static std::string ToPem(X509* certificate) {
    BIO* const out = BIO_new(BIO_s_mem());
    Require(PEM_write_bio_X509(out, certificate));
    return Take(out);
  }

  static void Extend(X509* certificate, int nid, const std::string& value) {
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
    X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
    Require(extension != nullptr && X509_add_ext(certificate, extension, -1) == 1);
    X509_EXTENSION_free(extension);
  }

  Certificate Sign(EVP_PKEY* key, const std::string& constraints, const std::string& names) const {
    Certificate certificate(X509_new());
    X509_set_version(certificate.get(), X509_VERSION_3);
    ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate.get()), ++serial_);
    X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 86400);
    X509_set_pubkey(certificate.get(), key);
    const std::string name = names.empty() ? "test authority" : "test node";
    X509_NAME* const subject = X509_get_subject_name(certificate.get());
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    X509_set_issuer_name(certificate.get(),
                         names.empty() ? subject : X509_get_subject_name(certificate_.get()));
    Extend(certificate.get(), NID_basic_constraints, "critical," + constraints);
    if (!names.empty()) Extend(certificate.get(), NID_subject_alt_name, names);
    Require(X509_sign(certificate.get(), key_.get(), EVP_sha256()) > 0);
    return certificate;
  }

  Key key_;
  mutable uint64_t serial_ = 0;
  Certificate certificate_;
};

}  // namespace peerchunk::test
