//! One server's address, and connections to it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, crypto::ring, version::TLS13};

use crate::error::{Error, Result};

/// Time for a connection and its handshake.
const CONNECT: Duration = Duration::from_secs(20);

/// Where a server is.
pub(crate) struct Address {
    /// Whether TLS is spoken there.
    secure: bool,
    /// Its name or number, without brackets.
    host: String,
    port: u16,
}

impl Address {
    /// Reads `https://HOST[:PORT]`. `http://` is taken for this machine alone.
    ///
    /// # Errors
    /// [`Error::Address`].
    pub(crate) fn read(address: &str) -> Result<Self> {
        let bad = || Error::Address { address: address.to_owned() };
        let (secure, rest) = match (address.strip_prefix("https://"), address.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(bad()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let default = if secure { 443 } else { 80 };
        // An IPv6 address stands in brackets.
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| bad())?),
            _ => (rest, default),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-.:_".contains(c);
        if host.is_empty() || !host.chars().all(plain) {
            return Err(bad());
        }
        let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if !secure && !here {
            return Err(bad());
        }
        Ok(Self { secure, host, port })
    }

    /// As browsers write it.
    pub(crate) fn origin(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        let host = self.host.to_ascii_lowercase();
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        match (self.secure, self.port) {
            (true, 443) | (false, 80) => format!("{scheme}://{host}"),
            (_, port) => format!("{scheme}://{host}:{port}"),
        }
    }
}

/// What is trusted, and shown, besides what the system has; all of it PEM.
#[derive(Clone, Copy, Default)]
pub struct Certificates<'a> {
    /// Certificates to trust beside those of the system.
    pub authority: Option<&'a [u8]>,
    /// The client's own chain and its private key, for a server that asks for them.
    pub own: Option<(&'a [u8], &'a [u8])>,
}

/// A server's address with everything that a request to it needs.
#[derive(Clone)]
pub struct Endpoint {
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    token: String,
}

impl Endpoint {
    /// Reads `https://HOST[:PORT]`. `http://` is taken for this machine alone.
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::Token`], [`Error::Tls`].
    pub fn new(address: &str, token: &str, certificates: Certificates<'_>) -> Result<Self> {
        let Address { secure, host, port } = Address::read(address)?;
        let token = token.trim().to_owned();
        if token.is_empty() {
            return Err(Error::Token { reason: "is empty" });
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::Token { reason: "is more than one plain word" });
        }
        let tls = if secure { Some(connector(certificates)?) } else { None };
        Ok(Self { host, port, tls, token })
    }

    /// Sends one request and returns the head of its answer; the body follows.
    ///
    /// # Errors
    /// [`Error::Line`], [`Error::Tls`].
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        extra: &[(&'static str, String)],
        body: Vec<u8>,
    ) -> Result<Response<Incoming>> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let what = || format!("{method} {scheme}://{}:{}{path}", self.host, self.port);
        let line = |reason: String| Error::Line { what: what(), reason };
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(HOST, format!("{}:{}", self.host, self.port));
        let mut secret = HeaderValue::from_str(&format!("Bearer {}", self.token))
            .map_err(|_| Error::Token { reason: "is no plain text" })?;
        secret.set_sensitive(true);
        request = request.header(AUTHORIZATION, secret);
        for (name, value) in extra {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|e| line(e.to_string()))?;
        let connect = TcpStream::connect((self.host.as_str(), self.port));
        let stream = tokio::time::timeout(CONNECT, connect).await.map_err(|_| line("no answer".into()))?;
        let stream = stream.map_err(|e| line(e.to_string()))?;
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return speak(stream, request).await.map_err(|e| {
                match e.is_parse() || e.is_incomplete_message() {
                    true => line(format!("{e}, as where https:// is spoken")),
                    false => line(e.to_string()),
                }
            });
        };
        let name = ServerName::try_from(self.host.clone()).map_err(|e| line(e.to_string()))?;
        let shaken = tokio::time::timeout(CONNECT, tls.connect(name, stream)).await;
        let stream = shaken.map_err(|_| line("no handshake".into()))?;
        let stream = stream.map_err(|e| match e.get_ref().and_then(|e| e.downcast_ref()) {
            Some(error) => Error::Tls { what: self.host.clone(), reason: handshake(error) },
            None => line(e.to_string()),
        })?;
        speak(stream, request).await.map_err(|e| match unknown_client(&e) {
            true => Error::Tls {
                what: self.host.clone(),
                reason: "it lets nobody in without a certificate that it knows: pass --client-cert and \
                         --client-key"
                    .into(),
            },
            false => line(e.to_string()),
        })
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> std::result::Result<Response<Incoming>, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer's body.
    tokio::spawn(connection);
    sender.send_request(request).await
}

/// What went wrong before the line was secure, and the next step.
fn handshake(error: &rustls::Error) -> String {
    use rustls::CertificateError as Bad;
    let advice = match error {
        rustls::Error::InvalidCertificate(
            Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. },
        ) => "look at the clock of this machine, or tell its operator",
        rustls::Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "give --server a name that stands in its certificate"
        }
        // As `openssl req -x509` makes them unless it is told otherwise.
        rustls::Error::InvalidCertificate(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "its certificate is one of an authority: its operator makes another with CA:FALSE"
        }
        rustls::Error::InvalidCertificate(_) => "pass --ca with the certificate that its operator gave you",
        rustls::Error::InvalidMessage(_) => "it speaks no TLS there: is it http://, or another port?",
        _ => "it speaks another TLS than version 1.3, or is no server of cipherlm",
    };
    format!("{error}: {advice}")
}

/// Whether the server closed the line for want of the client's certificate: in TLS 1.3 it says so
/// after the handshake.
fn unknown_client(error: &hyper::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(rustls::Error::AlertReceived(alert)) = inner.and_then(|e| e.downcast_ref()) {
            use rustls::AlertDescription::{
                BadCertificate, CertificateExpired, CertificateRequired, CertificateUnknown, DecryptError,
                UnknownCA,
            };
            return matches!(
                alert,
                BadCertificate
                    | CertificateExpired
                    | CertificateRequired
                    | CertificateUnknown
                    | DecryptError
                    | UnknownCA
            );
        }
        cause = error.source();
    }
    false
}

fn connector(Certificates { authority, own }: Certificates<'_>) -> Result<TlsConnector> {
    let failed = |what: &str, reason: String| Error::Tls { what: what.into(), reason };
    let mut roots = RootCertStore::empty();
    // A system without certificates can still trust the one that is given.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(pem) = authority {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|e| failed("--ca", e.to_string()))?;
            roots.add(certificate).map_err(|e| failed("--ca", e.to_string()))?;
        }
        if roots.len() == before {
            return Err(failed("--ca", "it holds no certificate".into()));
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| failed("TLS", e.to_string()))?;
    let builder = builder.with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_slice_iter(chain).collect::<std::result::Result<Vec<_>, _>>();
            let chain = chain.map_err(|e| failed("--client-cert", e.to_string()))?;
            let key =
                PrivateKeyDer::from_pem_slice(key).map_err(|e| failed("--client-key", e.to_string()))?;
            let config = builder.with_client_auth_cert(chain, key);
            config.map_err(|e| failed("--client-cert", e.to_string()))?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_travel_under_tls_or_not_at_all() {
        let of = |address: &str| {
            let made = Endpoint::new(address, "t\n", Certificates::default());
            made.map(|e| (e.host, e.port, e.tls.is_some()))
        };
        assert_eq!(of("https://a.example").unwrap(), ("a.example".into(), 443, true));
        assert_eq!(of("https://a.example:8443/").unwrap(), ("a.example".into(), 8443, true));
        assert_eq!(of("https://[::1]:8443").unwrap(), ("::1".into(), 8443, true));
        assert_eq!(of("http://127.0.0.1:80").unwrap(), ("127.0.0.1".into(), 80, false));
        assert_eq!(of("http://localhost:1").unwrap(), ("localhost".into(), 1, false));
        for bad in [
            "http://a.example",
            "a.example",
            "ftp://a",
            "https://",
            "https://a:b",
            "https://a/b",
            "https://a\r\nb",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
