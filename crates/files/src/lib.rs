#![doc = include_str!("../README.md")]

mod error;
mod lock;
mod read;
mod target;
mod text;
mod write;

pub use error::{Error, Result};
pub use lock::Lock;
pub use read::{Head, head, read, read_text, read_text_from};
pub use target::{Target, check_folder};
pub use text::{printable, printable_lines, shown};
pub use write::{Access, Existing, append, create_folder, rename, write, write_with};
