//! The browser client's files on loopback, under a policy that names one server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::endpoint::Address;
use crate::error::{Error, Result};
use crate::loopback;

/// Types of files that a page has.
const TYPES: [(&str, &str); 6] = [
    ("css", "text/css; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("svg", "image/svg+xml"),
    ("wasm", "application/wasm"),
];
/// What a page asks first: the server that it is for.
const SETTINGS: &str = "settings.json";
/// What `/` means.
const INDEX: &str = "index.html";

/// Files of a page by their names, before the door opens.
pub struct Page {
    files: BTreeMap<String, (&'static str, Bytes)>,
    /// Of every answer.
    headers: HeaderMap,
}

impl Page {
    /// A page without files for the server at `address`.
    ///
    /// # Errors
    /// [`Error::Address`] for an address that no client takes.
    pub fn new(address: &str) -> Result<Self> {
        let origin = Address::read(address)?.origin();
        let policy = format!(
            "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self' {origin}; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        let policy = HeaderValue::from_str(&policy);
        let policy = policy.map_err(|_| Error::Address { address: address.to_owned() })?;
        let fixed = HeaderValue::from_static;
        let headers = HeaderMap::from_iter([
            (CONTENT_SECURITY_POLICY, policy),
            (X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
            (REFERRER_POLICY, fixed("no-referrer")),
            (CACHE_CONTROL, fixed("no-store")),
            (HeaderName::from_static("cross-origin-opener-policy"), fixed("same-origin")),
            (HeaderName::from_static("cross-origin-resource-policy"), fixed("same-origin")),
        ]);
        let page = Self { files: BTreeMap::new(), headers };
        page.with(SETTINGS, json!({ "server": origin }).to_string().into_bytes())
    }

    /// The same with one more file.
    ///
    /// # Errors
    /// [`Error::PageFile`] for a name whose type no page has.
    pub fn with(mut self, name: &str, bytes: Vec<u8>) -> Result<Self> {
        let end = name.rsplit_once('.').map_or("", |(_, end)| end);
        let found = TYPES.iter().find(|(known, _)| *known == end);
        let Some((_, kind)) = found else {
            return Err(Error::PageFile { name: name.to_owned() });
        };
        self.files.insert(name.to_owned(), (kind, Bytes::from(bytes)));
        Ok(self)
    }

    /// Serves the files on a loopback address until `stop` is done.
    ///
    /// # Errors
    /// [`Error::Address`] for another address, [`Error::Line`] when it cannot be listened on.
    pub async fn run(
        self,
        address: SocketAddr,
        told: impl FnOnce(SocketAddr),
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        let router = Router::new().fallback(answer).with_state(Arc::new(self));
        loopback::serve(address, router, told, stop).await
    }

    fn find(&self, path: &str) -> Option<(&'static str, Bytes)> {
        let name = path.strip_prefix('/')?;
        self.files.get(if name.is_empty() { INDEX } else { name }).cloned()
    }
}

async fn answer(State(page): State<Arc<Page>>, request: Request) -> Response {
    let mut response = if !loopback::names_this_machine(request.headers()) {
        (StatusCode::MISDIRECTED_REQUEST, "this page answers to localhost alone\n").into_response()
    } else if ![Method::GET, Method::HEAD].contains(request.method()) {
        (StatusCode::METHOD_NOT_ALLOWED, "files are read\n").into_response()
    } else {
        match page.find(request.uri().path()) {
            Some((kind, bytes)) => ([(CONTENT_TYPE, kind)], bytes).into_response(),
            None => (StatusCode::NOT_FOUND, "no such file\n").into_response(),
        }
    };
    response.headers_mut().extend(page.headers.clone());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_the_files_that_it_was_given_and_one_server() {
        let page = Page::new("https://A.example:8443/").unwrap().with(INDEX, b"<p>".to_vec()).unwrap();
        let policy = page.headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("connect-src 'self' https://a.example:8443;"), "{policy}");
        assert_eq!(page.find("/"), page.find("/index.html"));
        assert_eq!(page.find("/").unwrap().0, "text/html; charset=utf-8");
        let (kind, settings) = page.find("/settings.json").unwrap();
        assert_eq!(
            (kind, &settings[..]),
            ("application/json", &br#"{"server":"https://a.example:8443"}"#[..])
        );
        for other in ["", "/other.js", "//index.html", "/../index.html", "/INDEX.html"] {
            assert!(page.find(other).is_none(), "{other}");
        }
        assert!(page.with("secret.key", vec![]).is_err());
        assert!(Page::new("http://a.example").is_err() && Page::new("https://a; script-src *").is_err());
    }
}
