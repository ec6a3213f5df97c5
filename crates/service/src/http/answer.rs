//! What answers have in common.

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use cipherlm_protocol::{Code, Digest, Problem};
use serde::Serialize;

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

/// A part of an address that names 32 bytes: parsed before any path is made of it.
pub(super) fn digest(text: &str) -> Result<Digest, Problem> {
    text.parse().map_err(|reason| Problem::new(Code::NotFound, format!("in this address {reason}")))
}

/// A value of the query.
pub(super) fn query<'q>(query: Option<&'q str>, name: &str) -> Option<&'q str> {
    let pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
}
