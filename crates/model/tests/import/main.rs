//! Public checkpoints: outputs equal those of PyTorch (`peers/import/outputs.py`), and bad files
//! are refused by name.

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod parity;
mod refusals;
