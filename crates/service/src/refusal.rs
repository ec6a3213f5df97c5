//! Errors of the library as problems of the protocol. None repeats what was sent.

use cipherlm_ckks::Error as Ckks;
use cipherlm_infer::{PROMPT_SECRET, object_code};
use cipherlm_protocol::{Code, Problem};

/// What a prompt on disk is called in errors.
pub(crate) const STORED_PROMPT: &str = "the stored prompt";

/// A refused object.
pub(crate) fn of_ckks(error: &Ckks) -> Problem {
    Problem::new(object_code(error), error.to_string())
}

/// A refused prompt.
pub(crate) fn of_prompt(error: &cipherlm_infer::Error) -> Problem {
    match error {
        cipherlm_infer::Error::Wire { source, .. } => of_ckks(source),
        cipherlm_infer::Error::Malformed { reason, .. } if reason.contains("other bytes") => {
            Problem::new(Code::ObjectMagic, "it is no encrypted prompt")
        }
        cipherlm_infer::Error::Malformed { .. } => {
            Problem::new(Code::ObjectTruncated, "the head of a prompt is not whole")
        }
        other => Problem::new(Code::ObjectField, other.to_string()),
    }
}

/// A run that ended without an answer.
pub(crate) fn of_run(error: &cipherlm_infer::Error) -> Problem {
    let detail = error.to_string();
    let damaged = match error {
        cipherlm_infer::Error::Slots {
            source: cipherlm_circuits::slots::Error::Ciphertext(source), ..
        } => {
            matches!(
                source,
                Ckks::MissingKey { .. }
                    | Ckks::Storage { .. }
                    | Ckks::Wire(_)
                    | Ckks::WrongKey { .. }
                    | Ckks::KeyMismatch { .. }
                    | Ckks::BadKeyShape { .. }
            )
        }
        cipherlm_infer::Error::Malformed { .. } => true,
        _ => false,
    };
    if matches!(error, cipherlm_infer::Error::Malformed { what, .. } if what == STORED_PROMPT) {
        return Problem::new(Code::ObjectHash, detail);
    }
    let full = match error {
        cipherlm_infer::Error::Files(error) => error.kind() == std::io::ErrorKind::StorageFull,
        _ => false,
    };
    if matches!(error, cipherlm_infer::Error::Mismatch { what: PROMPT_SECRET, .. }) {
        return Problem::new(Code::KeyMismatch, detail);
    }
    let code = match (damaged, full) {
        (true, _) => Code::KeyDamaged,
        (_, true) => Code::Disk,
        _ => Code::Internal,
    };
    Problem::new(code, detail)
}

/// A record or file that could not be kept.
pub(crate) fn of_own(error: &crate::error::Error) -> Problem {
    match error {
        crate::error::Error::Files(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            Problem::new(Code::Disk, "a file could not be written")
        }
        crate::error::Error::Records { source, .. } if is_full(source) => {
            Problem::new(Code::Disk, "a record could not be written")
        }
        crate::error::Error::Tenant { .. } => Problem::new(Code::JsonField, error.to_string()),
        // The words name paths of the server.
        _ => Problem::new(Code::Internal, "a record could not be kept"),
    }
}

fn is_full(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull)
}
