//! Doors on this machine alone.

use std::net::SocketAddr;

use axum::Router;
use axum::http::HeaderMap;
use axum::http::header::HOST;
use tokio::net::TcpListener;

use crate::error::{Error, Result};

/// Serves on a loopback address until `stop` is done.
///
/// # Errors
/// [`Error::Address`] for another address, [`Error::Listen`] when it cannot be listened on.
pub(crate) async fn serve(
    address: SocketAddr,
    router: Router,
    told: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    if !address.ip().is_loopback() {
        return Err(Error::Address { address: address.to_string() });
    }
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    told(listener.local_addr().map_err(failed)?);
    axum::serve(listener, router).with_graceful_shutdown(stop).await.map_err(failed)
}

/// Whether a request was made under a name of this machine: a page elsewhere that makes its own
/// name lead here is not.
pub(crate) fn names_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name =
        host.rsplit_once(':').map_or(host, |(name, port)| if port.ends_with(']') { host } else { name });
    ["localhost", "127.0.0.1", "[::1]"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_machines_are_told_apart() {
        let named = |host: &str| names_this_machine(&[(HOST, host.parse().unwrap())].into_iter().collect());
        for own in ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]", "[::1]:8080"] {
            assert!(named(own), "{own}");
        }
        for other in ["", "example.org", "127.0.0.1.example.org:8080", "localhost.", "[::2]:1", "10.0.0.1"] {
            assert!(!named(other), "{other}");
        }
        assert!(!names_this_machine(&HeaderMap::new()));
    }
}
