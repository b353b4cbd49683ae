//! TLS: the certificate, which is read again when its files change, and the handshake.

use crate::config::HttpConfig;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::ring,
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject},
        },
    },
    server::TlsStream,
};

/// Names of the protocols in the handshake, the preferred one first (RFC 7301, RFC 9113 section 3.2).
const HTTP2: &[u8] = b"h2";
const HTTP11: &[u8] = b"http/1.1";

/// The first byte of every handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// Answer to a client that speaks HTTP without TLS.
const PLAIN_REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 42\r\nconnection: close\r\n\r\nthis port speaks TLS: begin with https://\n";

/// Why the certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {} ({key}): {source}", path.display())]
    Read {
        /// Setting that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// A file has the wrong content.
    #[error("{} ({key}) {cause}", path.display())]
    Content {
        /// Setting that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Reason.
        cause: String,
    },
    /// The certificate and the key do not match, or cannot be used together.
    #[error("{} and {} do not work together: {cause}", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Reason.
        cause: rustls::Error,
    },
}

/// The certificate that connections are served with.
#[derive(Debug)]
pub(super) struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    /// Content of the two files that is in use.
    read: Mutex<Pair>,
    current: ArcSwap<ServerConfig>,
}

/// Bytes of the certificate's file and of the key's file.
type Pair = (Vec<u8>, Vec<u8>);

impl Tls {
    /// Reads the configured files; `None` without TLS.
    pub(super) fn open(config: &HttpConfig) -> Result<Option<Self>, TlsError> {
        let Some((certificate, key)) = config.tls_files() else { return Ok(None) };
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        let pair = read(&certificate, &key)?;
        let current = ArcSwap::from_pointee(server_config(&pair, &certificate, &key)?);
        warn_if_readable(&key);
        Ok(Some(Self { certificate, key, read: Mutex::new(pair), current }))
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        vec![self.certificate.clone(), self.key.clone()]
    }

    /// Reads the files again. New connections get the new certificate, existing ones go on with the old. Invalid files
    /// change nothing.
    pub(super) fn reload(&self) {
        let mut known = self.read.lock();
        let fresh = read(&self.certificate, &self.key).and_then(|pair| {
            if pair == *known {
                return Ok(None);
            }
            server_config(&pair, &self.certificate, &self.key).map(|config| Some((pair, config)))
        });
        match fresh {
            Ok(None) => {}
            Ok(Some((pair, config))) => {
                self.current.store(Arc::new(config));
                *known = pair;
                warn_if_readable(&self.key);
                tracing::info!(certificate = %self.certificate.display(), "the certificate is renewed");
            }
            Err(error) => tracing::warn!("the certificate is not renewed, the old one stays in use: {error}"),
        }
    }

    /// Performs the handshake. A client that speaks HTTP without TLS gets an answer that says so.
    pub(super) async fn accept(&self, mut stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE {
            if first[0].is_ascii_alphabetic() {
                stream.write_all(PLAIN_REFUSAL).await?;
                stream.shutdown().await?;
            }
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the client speaks no TLS"));
        }
        TlsAcceptor::from(self.current.load_full()).accept(stream).await
    }
}

/// Whether both sides have agreed on HTTP/2.
pub(super) fn speaks_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(HTTP2)
}

fn read(certificate: &Path, key: &Path) -> Result<Pair, TlsError> {
    let read =
        |path: &Path, key| fs::read(path).map_err(|source| TlsError::Read { key, path: path.to_owned(), source });
    Ok((read(certificate, "http.tls_certificate")?, read(key, "http.tls_key")?))
}

fn server_config(pair: &Pair, certificate: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let wrong = |key, path: &Path, cause: String| TlsError::Content { key, path: path.to_owned(), cause };
    let chain = CertificateDer::pem_slice_iter(&pair.0).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| wrong("http.tls_certificate", certificate, format!("is not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(wrong("http.tls_certificate", certificate, "has no certificate in PEM".into()));
    }
    let private = PrivateKeyDer::from_pem_slice(&pair.1).map_err(|error| {
        let is_encrypted = pair.1.windows(9).any(|it| it == b"ENCRYPTED");
        let cause = match error {
            _ if is_encrypted => "is encrypted: write it without a passphrase, readable by its owner only".into(),
            pem::Error::NoItemsFound => "has no private key in PEM".into(),
            error => format!("is not PEM: {error}"),
        };
        wrong("http.tls_key", key, cause)
    })?;
    let pair = |cause| TlsError::Pair { certificate: certificate.to_owned(), key: key.to_owned(), cause };
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(pair)?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, private).map_err(pair)?;
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP11.to_vec()];
    Ok(config)
}

/// Mode bits that let others than the owner and group read or write a file.
const OTHERS: u32 = 0o006;

fn warn_if_readable(key: &Path) {
    if fs::metadata(key).is_ok_and(|it| it.mode() & OTHERS != 0) {
        tracing::warn!(key = %key.display(), "every user of this machine can read the private key: chmod 600");
    }
}
