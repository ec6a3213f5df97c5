//! Pages of other origins: those that the operator names may read answers, and no others.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::App;

/// What a page needs: fetching, submitting, giving up.
const METHODS: &str = "GET, PUT, DELETE";
const HEADERS: &str = "authorization, content-type, last-event-id";
const EXPOSED: &str = "retry-after, x-request-id";
/// Seconds for which a browser need not ask again.
const MAX_AGE: &str = "600";

/// Tells a browser which answers its page may read. Without configured origins nothing is changed.
/// A request needs its token all the same.
pub(super) async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let origins = &app.config.origins;
    if origins.is_empty() {
        return next.run(request).await;
    }
    let (headers, fixed) = (request.headers(), HeaderValue::from_static);
    let known = |origin: &&HeaderValue| origins.iter().any(|known| known.as_bytes() == origin.as_bytes());
    let origin = headers.get(ORIGIN).filter(known).cloned();
    let asks = request.method() == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if origin.is_some() && asks {
        let said = [
            (ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
            (ACCESS_CONTROL_MAX_AGE, MAX_AGE),
        ];
        (StatusCode::NO_CONTENT, said).into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.append(VARY, fixed("origin"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, fixed(EXPOSED));
    }
    response
}
