#![doc = include_str!("../README.md")]

mod client;
mod job;
mod model;
mod numbers;
mod plan;
mod refusal;
mod server;
mod watch;

/// The half of the package `cipherlm` that is written in Rust.
#[pyo3::pymodule]
mod _cipherlm {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::client::PyClient;
    #[pymodule_export]
    use crate::job::{Answer, Events, Job, Prompt};
    #[pymodule_export]
    use crate::model::{Card, PyModel, from_pretrained};
    #[pymodule_export]
    use crate::plan::PyPlan;
    #[pymodule_export]
    use crate::refusal::_codes;
    #[pymodule_export]
    use crate::server::{LocalServer, PyServer, connect};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
