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
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring, version::TLS13};

use crate::error::{Error, Result};

/// Time for a connection and its handshake.
const CONNECT: Duration = Duration::from_secs(20);

/// A server's address with everything that a request to it needs.
#[derive(Clone)]
pub struct Endpoint {
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    token: String,
}

impl Endpoint {
    /// Reads `https://HOST[:PORT]`. `http://` is taken for this machine alone. `authority` is PEM:
    /// certificates to trust beside those of the system.
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::Tls`].
    pub fn new(address: &str, token: &str, authority: Option<&[u8]>) -> Result<Self> {
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
        let token = token.trim().to_owned();
        let tls = if secure { Some(connector(authority)?) } else { None };
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
        let what = || format!("{method} https://{}:{}{path}", self.host, self.port);
        let line = |reason: String| Error::Line { what: what(), reason };
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(HOST, format!("{}:{}", self.host, self.port));
        let mut secret = HeaderValue::from_str(&format!("Bearer {}", self.token))
            .map_err(|_| Error::Strange { what: "the token is no plain text".into() })?;
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
        let Some(tls) = &self.tls else { return speak(stream, request).await.map_err(line) };
        let name = ServerName::try_from(self.host.clone()).map_err(|e| line(e.to_string()))?;
        let shaken = tokio::time::timeout(CONNECT, tls.connect(name, stream)).await;
        let stream = shaken.map_err(|_| line("no handshake".into()))?;
        let stream = stream.map_err(|e| match e.kind() {
            std::io::ErrorKind::InvalidData => Error::Tls {
                what: format!("the certificate of {}", self.host),
                reason: format!("{e}: pass --ca with the certificate that its operator gave you"),
            },
            _ => line(e.to_string()),
        })?;
        speak(stream, request).await.map_err(line)
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> std::result::Result<Response<Incoming>, String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    // It ends with the answer's body.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(|e| e.to_string())
}

fn connector(authority: Option<&[u8]>) -> Result<TlsConnector> {
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
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_travel_under_tls_or_not_at_all() {
        let of =
            |address: &str| Endpoint::new(address, "t\n", None).map(|e| (e.host, e.port, e.tls.is_some()));
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
