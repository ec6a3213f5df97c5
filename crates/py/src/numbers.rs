//! Numbers between Rust and numpy, always as copies.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// A float64 array.
pub(crate) fn array<'py>(py: Python<'py>, values: &[f64]) -> PyResult<Bound<'py, PyAny>> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    from_bytes(py, &bytes, "<f8")
}

/// An int64 array.
pub(crate) fn whole<'py>(py: Python<'py>, values: &[u32]) -> PyResult<Bound<'py, PyAny>> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| i64::from(*value).to_le_bytes()).collect();
    from_bytes(py, &bytes, "<i8")
}

/// numpy is imported when a number is asked for, not with the package: that takes longer than all
/// the rest of it. An array over bytes cannot be written, a copy can.
fn from_bytes<'py>(py: Python<'py>, bytes: &[u8], kind: &str) -> PyResult<Bound<'py, PyAny>> {
    let view = py.import("numpy")?.call_method1("frombuffer", (PyBytes::new(py, bytes), kind))?;
    view.call_method0("copy")
}

/// Token ids out of an array, a list or anything else that is a sequence.
pub(crate) fn ids(given: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    match given.getattr_opt("tolist")? {
        Some(tolist) => tolist.call0()?.extract(),
        None => given.extract(),
    }
}
