//! What answers have in common.

use axum::extract::{FromRequestParts, Path};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use cipherlm_protocol::{Code, Digest, Problem};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::auth::{Caller, Scope};

/// A problem on its way out.
pub(super) struct Refusal(pub(super) Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, serde_json::to_vec(&self.0).unwrap_or_default()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.0.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.0.code() == Some(Code::Auth) {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(code) = self.0.code() {
            response.extensions_mut().insert(code);
        }
        response
    }
}

/// A value as JSON.
pub(super) fn json_of(value: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    ([(CONTENT_TYPE, "application/json")], bytes).into_response()
}

/// Who asks, before anything else of the request is looked at.
pub(super) fn authorise(app: &App, headers: &HeaderMap, scope: Option<Scope>) -> Result<Caller, Problem> {
    app.tokens.check(headers.get(AUTHORIZATION).map(HeaderValue::as_bytes), scope)
}

/// Parts of an address; one that is no text is at no address.
pub(super) struct Named<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let read = Path::from_request_parts(parts, state).await;
        let refused = |_| Problem::new(Code::NotFound, "a part of the address is no text");
        Ok(read.map(|Path(names)| Self(names)).map_err(refused)?)
    }
}

/// A part of an address that names 32 bytes: parsed before any path is made of it.
pub(super) fn digest(text: &str) -> Result<Digest, Problem> {
    text.parse().map_err(|reason| Problem::new(Code::NotFound, format!("in this address {reason}")))
}

/// The values of a query, by the names that the address takes: each at most once, and no others.
pub(super) fn query<'q, const N: usize>(
    query: Option<&'q str>,
    names: [&str; N],
) -> Result<[Option<&'q str>; N], Problem> {
    let mut found = [None; N];
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let refused = |text: String| Problem::new(Code::Query, text);
        let Some(at) = names.iter().position(|known| *known == name) else {
            return Err(refused(format!("the query has a name that is none of: {}", names.join(", "))));
        };
        if found[at].replace(value).is_some() {
            return Err(refused(format!("{} stands in the query twice", names[at])));
        }
    }
    Ok(found)
}

/// A number of a query or a header.
pub(super) fn number(what: &str, text: &str, most: u64) -> Result<u64, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && *number <= most);
    number.ok_or_else(|| Problem::new(Code::Query, format!("{what} is no number from 0 to {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_each_name_once_and_no_others() {
        let code = |text| query(Some(text), ["key", "plan"]).map_err(|p| p.code());
        assert_eq!(query(None, ["key"]), Ok([None]));
        assert_eq!(code("plan=p&key=k&"), Ok([Some("k"), Some("p")]));
        assert_eq!(code("key"), Ok([Some(""), None]));
        for bad in ["key=a&key=a", "other=1", "key=a&=b", "KEY=a", "%6bey=a"] {
            assert_eq!(code(bad), Err(Some(Code::Query)), "{bad}");
        }
    }

    #[test]
    fn numbers_are_digits_in_their_bounds() {
        assert_eq!(number("wait", "60", 60), Ok(60));
        for bad in ["", "61", "-1", "+1", "1.0", "1e1", " 1", "99999999999999999999999"] {
            assert!(number("wait", bad, 60).is_err(), "{bad}");
        }
    }
}
