#include "peer/http2/tls_socket.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "base/logging.h"
#include "peerchunk/base/mutex.h"
#include "peerchunk/base/range.h"
#include "peerchunk/base/status.h"
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

namespace peerchunk {
namespace {

// Several records are decrypted for each read of the socket.
constexpr size_t kReadAheadBytes = 128 * kKiB;

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Context = std::unique_ptr<SSL_CTX, Deleter<SSL_CTX_free>>;
using Session = std::unique_ptr<SSL, Deleter<SSL_free>>;
using Certificate = std::unique_ptr<X509, Deleter<X509_free>>;
using Names = std::unique_ptr<GENERAL_NAMES, Deleter<GENERAL_NAMES_free>>;

// The oldest of OpenSSL's errors on this thread, and an end to all of them.
std::string OpenSslError() {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  std::array<char, 256> text{};
  ERR_error_string_n(code, text.data(), text.size());
  return code == 0 ? "no reason given" : text.data();
}

absl::StatusOr<Context> MakeContext(const TlsFiles& files) {
  const auto failed = [](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": ", OpenSslError()));
  };
  ERR_clear_error();
  Context context(SSL_CTX_new(TLS_client_method()));
  if (context == nullptr) return failed("TLS");
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION);  // RFC 9113 section 9.2.1.
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_mode(context.get(),
                   SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_read_ahead(context.get(), 1);
  SSL_CTX_set_default_read_buffer_len(context.get(), kReadAheadBytes);
  constexpr unsigned char kHttp2[] = {2, 'h', '2'};
  if (SSL_CTX_set_alpn_protos(context.get(), kHttp2, sizeof(kHttp2)) != 0) return failed("ALPN");
  if (SSL_CTX_load_verify_file(context.get(), files.authority_path.c_str()) != 1) {
    return failed(files.authority_path);
  }
  if (SSL_CTX_use_certificate_chain_file(context.get(), files.certificate_path.c_str()) != 1) {
    return failed(files.certificate_path);
  }
  if (SSL_CTX_use_PrivateKey_file(context.get(), files.key_path.c_str(), SSL_FILETYPE_PEM) != 1 ||
      SSL_CTX_check_private_key(context.get()) != 1) {
    return failed(files.key_path);
  }
  return context;
}

// What tells one version of a file from the next.
struct FileMark {
  ino_t inode = 0;
  off_t size = 0;
  timespec changed{};

  friend bool operator==(const FileMark& a, const FileMark& b) {
    return a.inode == b.inode && a.size == b.size && a.changed.tv_sec == b.changed.tv_sec &&
           a.changed.tv_nsec == b.changed.tv_nsec;
  }
};
using FileMarks = std::array<FileMark, 3>;

FileMarks MarksOf(const TlsFiles& files) {
  FileMarks marks;
  size_t i = 0;
  for (const std::string* path :
       {&files.certificate_path, &files.key_path, &files.authority_path}) {
    struct stat status {};
    if (stat(path->c_str(), &status) == 0) {
      marks[i] = {.inode = status.st_ino, .size = status.st_size, .changed = status.st_mtim};
    }
    ++i;
  }
  return marks;
}

}  // namespace

struct TlsIdentity::Impl {
  Impl(TlsFiles given, Context made, const FileMarks& seen)
      : files(std::move(given)), context(std::move(made)), marks(seen) {}

  // A session of the files as they are now.
  Session NewSession() {
    const FileMarks now = MarksOf(files);
    bool changed = false;
    {
      MutexLock lock(mutex);
      changed = now != marks;
    }
    if (changed) {
      auto fresh = MakeContext(files);
      if (!fresh.ok()) {
        Logger("peer").warn(
            "event=tls_files_unusable cause=\"{}\"",
            std::string_view(fresh.status().message().data(), fresh.status().message().size()));
      }
      MutexLock lock(mutex);
      marks = now;
      if (fresh.ok()) context.swap(*fresh);
    }
    MutexLock lock(mutex);
    return Session(SSL_new(context.get()));
  }

  const TlsFiles files;
  Mutex mutex;
  Context context PEERCHUNK_GUARDED_BY(mutex);
  FileMarks marks PEERCHUNK_GUARDED_BY(mutex);
};

TlsIdentity::TlsIdentity(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TlsIdentity::~TlsIdentity() = default;

absl::StatusOr<std::shared_ptr<TlsIdentity>> TlsIdentity::Load(TlsFiles files) {
  if (files.certificate_path.empty() || files.key_path.empty() || files.authority_path.empty()) {
    return absl::InvalidArgumentError(
        "a certificate, its key and the authority belong together: name all three");
  }
  const FileMarks marks = MarksOf(files);
  PEERCHUNK_ASSIGN_OR_RETURN(Context context, MakeContext(files));
  return std::shared_ptr<TlsIdentity>(
      new TlsIdentity(std::make_unique<Impl>(std::move(files), std::move(context), marks)));
}

namespace http2 {
namespace {

std::string_view HostOf(std::string_view address) {
  const std::string_view host = address.substr(0, address.rfind(':'));
  return host.starts_with('[') ? host.substr(1, host.size() - 2) : host;
}

std::string TextOf(const ASN1_STRING* text) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
          static_cast<size_t>(ASN1_STRING_length(text))};
}

std::string NumericIp(const ASN1_OCTET_STRING* bytes) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  const int family = ASN1_STRING_length(bytes) == 4 ? AF_INET : AF_INET6;
  if (family == AF_INET6 && ASN1_STRING_length(bytes) != 16) return {};
  inet_ntop(family, ASN1_STRING_get0_data(bytes), text.data(), text.size());
  return text.data();
}

// The names that a certificate is for, as an operator lists them.
std::vector<std::string> NamesOf(X509* certificate) {
  std::vector<std::string> names;
  const Names general(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; general != nullptr && i < sk_GENERAL_NAME_num(general.get()); ++i) {
    const GENERAL_NAME* const name = sk_GENERAL_NAME_value(general.get(), i);
    if (name->type == GEN_DNS) names.push_back(TextOf(name->d.dNSName));
    if (name->type == GEN_URI) names.push_back(TextOf(name->d.uniformResourceIdentifier));
    if (name->type == GEN_IPADD) names.push_back(NumericIp(name->d.iPAddress));
  }
  return names;
}

class TlsSocket final : public Socket {
 public:
  TlsSocket(std::unique_ptr<Socket> inner, std::string address, std::vector<std::string> names)
      : inner_(std::move(inner)), address_(std::move(address)), names_(std::move(names)) {}

  // Once, before anything else.
  absl::Status Begin(Session session) {
    BIO* const bio = BIO_new(Method());
    if (session == nullptr || bio == nullptr) return absl::ResourceExhaustedError("no memory");
    BIO_set_data(bio, inner_.get());
    BIO_set_init(bio, 1);
    MutexLock lock(mutex_);
    session_ = std::move(session);
    SSL_set_bio(session_.get(), bio, bio);
    SSL_set_connect_state(session_.get());
    if (!names_.empty()) return absl::OkStatus();
    X509_VERIFY_PARAM* const rules = SSL_get0_param(session_.get());
    const std::string host(HostOf(address_));
    return X509_VERIFY_PARAM_set1_ip_asc(rules, host.c_str()) == 1
               ? absl::OkStatus()
               : absl::InvalidArgumentError(host + " is no address");
  }

  int fd() const override { return inner_->fd(); }

  absl::StatusOr<bool> Open() override {
    if (!connected_) {
      PEERCHUNK_ASSIGN_OR_RETURN(connected_, inner_->Open());
      if (!connected_) return false;
    }
    MutexLock lock(mutex_);
    ERR_clear_error();
    const int done = SSL_do_handshake(session_.get());
    if (done != 1) {
      const int why = SSL_get_error(session_.get(), done);
      wants_write_ = why == SSL_ERROR_WANT_WRITE;
      if (wants_write_ || why == SSL_ERROR_WANT_READ) return false;
      return Failure("TLS with " + address_, why);
    }
    PEERCHUNK_RETURN_IF_ERROR(CheckPeer());
    return true;
  }
  short OpenEvents() const override {
    if (!connected_) return inner_->OpenEvents();
    MutexLock lock(mutex_);
    return wants_write_ ? POLLOUT : POLLIN;
  }

  absl::StatusOr<size_t> Read(absl::Span<char> first, absl::Span<char> second) override {
    size_t total = 0;
    MutexLock lock(mutex_);
    for (absl::Span<char> to : {first, second}) {
      while (!to.empty()) {
        size_t got = 0;
        ERR_clear_error();
        const int done = SSL_read_ex(session_.get(), to.data(), to.size(), &got);
        if (done != 1) {
          const int why = SSL_get_error(session_.get(), done);
          if (total > 0 || why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) return total;
          return Failure("read from " + address_, why);
        }
        total += got;
        to.remove_prefix(got);
        if (total >= kReadAheadBytes) return total;
      }
    }
    return total;
  }

  absl::StatusOr<size_t> Write(std::string_view bytes) override {
    size_t sent = 0;
    MutexLock lock(mutex_);
    ERR_clear_error();
    const int done = SSL_write_ex(session_.get(), bytes.data(), bytes.size(), &sent);
    if (done == 1) return sent;
    const int why = SSL_get_error(session_.get(), done);
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) return 0;
    return Failure("write to " + address_, why);
  }

  bool HasBuffered() const override {
    MutexLock lock(mutex_);
    return SSL_has_pending(session_.get()) == 1;
  }

  void Shutdown() override { inner_->Shutdown(); }

 private:
  // OpenSSL's view of the socket inside: its own would raise SIGPIPE.
  static const BIO_METHOD* Method() {
    static const BIO_METHOD* const method = [] {
      BIO_METHOD* const made = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "peerchunk socket");
      BIO_meth_set_read_ex(made, [](BIO* bio, char* to, size_t size, size_t* got) {
        BIO_clear_retry_flags(bio);
        const auto step = InnerOf(bio)->Read(absl::MakeSpan(to, size), {});
        if (!step.ok()) return 0;
        *got = *step;
        if (*step > 0) return 1;
        BIO_set_retry_read(bio);
        return 0;
      });
      BIO_meth_set_write_ex(made, [](BIO* bio, const char* from, size_t size, size_t* sent) {
        BIO_clear_retry_flags(bio);
        const auto step = InnerOf(bio)->Write({from, size});
        if (!step.ok()) return 0;
        *sent = *step;
        if (*step > 0) return 1;
        BIO_set_retry_write(bio);
        return 0;
      });
      BIO_meth_set_ctrl(made, [](BIO*, int command, long, void*) -> long {
        return command == BIO_CTRL_FLUSH ? 1 : 0;
      });
      return made;
    }();
    return method;
  }
  static Socket* InnerOf(BIO* bio) { return static_cast<Socket*>(BIO_get_data(bio)); }

  absl::Status Failure(const std::string& what, int why) const PEERCHUNK_REQUIRES(mutex_) {
    if (why == SSL_ERROR_ZERO_RETURN || why == SSL_ERROR_SYSCALL) {
      ERR_clear_error();
      return absl::UnavailableError(what + ": the connection was closed");
    }
    const long verified = SSL_get_verify_result(session_.get());
    if (verified == X509_V_OK) return absl::UnavailableError(what + ": " + OpenSslError());
    ERR_clear_error();
    return absl::UnavailableError(absl::StrCat(what, ": the peer's certificate is not accepted: ",
                                               X509_verify_cert_error_string(verified)));
  }

  absl::Status CheckPeer() const PEERCHUNK_REQUIRES(mutex_) {
    const unsigned char* protocol = nullptr;
    unsigned size = 0;
    SSL_get0_alpn_selected(session_.get(), &protocol, &size);
    if (std::string_view(reinterpret_cast<const char*>(protocol), size) != "h2") {
      return absl::UnavailableError("TLS with " + address_ + ": the peer does not speak HTTP/2");
    }
    if (names_.empty()) return absl::OkStatus();
    const Certificate certificate(SSL_get1_peer_certificate(session_.get()));
    for (const std::string& name : NamesOf(certificate.get())) {
      if (std::find(names_.begin(), names_.end(), name) != names_.end()) return absl::OkStatus();
    }
    return absl::UnavailableError("TLS with " + address_ +
                                  ": the peer's certificate has none of the names in "
                                  "--tls-peer-name");
  }

  const std::unique_ptr<Socket> inner_;
  const std::string address_;
  const std::vector<std::string> names_;
  bool connected_ = false;  // Of whoever opens.
  // A session is used by one thread at a time. Nothing under this lock waits: the socket never
  // blocks.
  mutable Mutex mutex_;
  Session session_ PEERCHUNK_GUARDED_BY(mutex_);
  bool wants_write_ PEERCHUNK_GUARDED_BY(mutex_) = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Socket>> WrapInTls(std::unique_ptr<Socket> inner,
                                                  TlsIdentity& identity,
                                                  const PeerAddress& address) {
  auto socket = std::make_unique<TlsSocket>(std::move(inner), address.ToString(),
                                            identity.impl().files.peer_names);
  PEERCHUNK_RETURN_IF_ERROR(socket->Begin(identity.impl().NewSession()));
  return socket;
}

}  // namespace http2
}  // namespace peerchunk
