//! Refusals (RFC 9457): what is wrong, with both sides of a mismatch, and what to do next.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Where the codes are explained.
const BASE: &str = "https://cipherlm.github.io/problems/";

macro_rules! codes {
    ($($variant:ident $code:literal $status:literal $title:literal $next:literal;)*) => {
        /// What can be wrong; the names are fixed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $(#[doc = $title] $variant,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name, HTTP status, title, and the next step.
            fn row(self) -> (&'static str, u16, &'static str, &'static str) {
                match self {
                    $(Self::$variant => ($code, $status, $title, $next),)*
                }
            }
        }
    };
}

codes! {
    ObjectTruncated "object/truncated" 400 "The object ends too early"
        "send the whole file; make it again if it is short on your side";
    ObjectTrailing "object/trailing" 400 "Bytes follow the object" "send the file as it was made";
    ObjectMagic "object/magic" 400 "Not an object of this protocol"
        "send what `cipherlm encrypt` or `cipherlm keygen` wrote";
    ObjectType "object/type" 400 "Another type of object" "send what belongs to this address";
    ObjectVersion "object/version" 400 "Another version of the format"
        "make it again with the version of the server";
    ObjectLength "object/length" 400 "A length other than the parameters imply"
        "make it again for the plan of this server";
    ObjectHash "object/hash" 400 "The object is damaged" "copy or make it again";
    ObjectResidue "object/residue" 422 "A residue is not below its prime" "make it again";
    ObjectField "object/field" 422 "A field has an impossible value"
        "make it again for the plan of this server";
    ParamsMismatch "params/mismatch" 409 "Other parameters"
        "make keys and prompt for the plan of this server";
    KeyMismatch "key/mismatch" 409 "Another key" "encrypt with the secret whose keys are registered";
    PlanMismatch "plan/mismatch" 409 "Another plan" "encrypt for the plan of this server";
    KeyPurpose "key/purpose" 422 "A key that no plan asks for"
        "push the folder that `cipherlm keygen` made for this plan";
    KeyShape "key/shape" 422 "A key of another shape"
        "push the folder that `cipherlm keygen` made for this plan";
    KeyInsecure "key/insecure" 422 "A key that would not be secure" "make keys again with `cipherlm keygen`";
    BlobHash "blob/hash" 422 "The content has another hash" "send the file again";
    BlobUnlisted "blob/unlisted" 404 "Not a file of the manifest"
        "send the manifest first: PUT /v1/keys/{key}";
    JobHash "job/hash" 422 "The prompt has another hash" "name the job by the BLAKE3 hash of its prompt";
    KeyUnknown "key/unknown" 404 "No such keys" "register them: `cipherlm push`";
    KeyIncomplete "key/incomplete" 409 "Keys are missing" "`cipherlm push` sends what is missing";
    KeyDamaged "key/damaged" 409 "A stored key is damaged" "`cipherlm push` sends it again";
    JobUnknown "job/unknown" 404 "No such job" "submit it: results are kept for a limited time";
    JobUnfinished "job/unfinished" 409 "The job is not done" "wait for its event `done`";
    JobDead "job/dead" 500 "The job ends its workers"
        "tell its operator the name of the job; submit another prompt";
    PlanUnknown "plan/unknown" 404 "No such plan" "ask GET /v1/models for the plans of this server";
    PlanSuperseded "plan/superseded" 409 "The server has another plan now"
        "fetch the new plan and make keys for it";
    NotFound "not-found" 404 "Nothing at this address" "see /openapi.json";
    Method "method" 405 "This address takes other methods" "see /openapi.json";
    Query "query" 400 "Not a query or header that this address takes" "see /openapi.json";
    Auth "auth" 401 "No valid token"
        "send `Authorization: Bearer TOKEN`, or give `cipherlm` the --token-file of its operator";
    Scope "scope" 403 "The token does not allow this" "use a token with that scope";
    LengthRequired "length/required" 411 "No declared length" "send Content-Length";
    LengthMismatch "length/mismatch" 413 "Not the length that is expected" "send the file as it was made";
    Slow "slow" 408 "The request took too long to arrive" "send it again on a faster line";
    JsonLimit "json/limit" 400 "Too long or too deep" "send less";
    JsonField "json/field" 400 "Not the JSON that is expected" "see /openapi.json";
    QuotaJobs "quota/jobs" 429 "Too many jobs" "wait for one of your jobs";
    QuotaKeys "quota/keys" 429 "Too many bytes of keys"
        "delete keys that you no longer use: DELETE /v1/keys/{key}";
    Busy "busy" 429 "The queue is full" "try again after the seconds in Retry-After";
    Stopping "stopping" 503 "The server is stopping" "try again after the seconds in Retry-After";
    Disk "disk" 507 "The server's disk is full" "tell its operator";
    Memory "memory" 507 "The server's memory is short" "tell its operator";
    Internal "internal" 500 "A fault of the server" "tell its operator the request id";
}

impl Code {
    /// Its name: `key/mismatch`.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// Its HTTP status.
    pub fn status(self) -> u16 {
        self.row().1
    }

    /// The code of that name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

/// A refusal, as `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// An address that ends in the code.
    #[serde(rename = "type")]
    kind: Box<str>,
    /// What the code means.
    pub title: Box<str>,
    /// The HTTP status.
    pub status: u16,
    /// This case, both sides of a mismatch; never what was sent.
    pub detail: Box<str>,
    /// What to do.
    pub next: Box<str>,
    /// Files that are missing.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub missing: Box<[Digest]>,
    /// The plan that took the place of the one asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Box<str>>,
    /// Seconds after which to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl Problem {
    /// A problem with the words of its code and what is particular to this case.
    pub fn new(code: Code, detail: impl Into<Box<str>>) -> Self {
        let (name, status, title, next) = code.row();
        Self {
            kind: format!("{BASE}{name}").into(),
            title: title.into(),
            status,
            detail: detail.into(),
            next: next.into(),
            missing: Box::default(),
            plan: None,
            retry_after: None,
        }
    }

    /// Its code, if this version knows it.
    pub fn code(&self) -> Option<Code> {
        self.kind.strip_prefix(BASE).and_then(Code::of)
    }

    /// The same with files that are missing.
    #[must_use]
    pub fn with_missing(self, missing: Vec<Digest>) -> Self {
        Self { missing: missing.into(), ..self }
    }

    /// The same with the plan that took the other's place.
    #[must_use]
    pub fn with_plan(self, plan: impl Into<Box<str>>) -> Self {
        Self { plan: Some(plan.into()), ..self }
    }

    /// The same with seconds after which to try again.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.title, self.detail, self.next)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart_and_come_back() {
        for &code in Code::ALL {
            let problem = Problem::new(code, "detail").with_plan("p").retry_after(7);
            let text = serde_json::to_string(&problem).unwrap();
            let back: Problem = serde_json::from_str(&text).unwrap();
            assert_eq!((back.code(), back), (Some(code), problem));
            assert!((400..600).contains(&code.status()));
            assert_eq!(Code::ALL.iter().filter(|other| other.name() == code.name()).count(), 1);
        }
        assert_eq!(Code::of("no/such"), None);
    }
}
