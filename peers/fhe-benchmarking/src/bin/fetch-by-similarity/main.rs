//! Fetch by similarity: which records have a cosine above 0.8 to the query, and their payloads;
//! records, payloads and query encrypted. See `layout` for how.

mod answer;
mod circuit;
mod client;
mod instance;
mod layout;
mod server;
#[cfg(test)]
mod tests;
mod threshold;

use peer_fhe_benchmarking::{Error, Result, Task};
use std::path::Path;
use std::process::ExitCode;

type Stage = fn(&Task) -> Result<()>;

/// Stages by the names that the harness starts them under, and one that `cargo xtask hebench` asks.
const STAGES: [(&str, Stage); 7] = [
    ("client_key_generation", client::key_generation),
    ("client_encode_encrypt_db", client::encode_encrypt_db),
    ("client_encode_encrypt_query", client::encode_encrypt_query),
    ("server_encrypted_compute", server::encrypted_compute),
    ("client_decrypt_decode", client::decrypt_decode),
    ("client_postprocess", client::postprocess),
    ("nearest", client::nearest),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", arguments.first().map_or("stage", String::as_str));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let (program, rest) = arguments.split_first().ok_or(Error::Usage { given: String::new() })?;
    let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
    let Some((_, stage)) = STAGES.iter().find(|(stage, _)| *stage == name) else {
        let known: Vec<&str> = STAGES.iter().map(|(stage, _)| *stage).collect();
        return Err(Error::Stage { name: name.into(), known: known.join(" ") });
    };
    let root = std::env::current_dir().map_err(|source| cipherlm_files::Error::Io {
        action: "finding",
        path: ".".into(),
        source,
    })?;
    stage(&Task::parse(&root, rest)?)
}
