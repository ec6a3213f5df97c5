//! GGUF files: description, tokenizer and tensors in one.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use cipherlm_files::shown;
use serde_json::{Map, Value};

use super::archive::{Archive, Entry, open_file, size, unusable};
use super::config::Config;
use super::dtype::Dtype;
use super::llama::{self, Sizes};
use super::recipe::Book;
use crate::error::{Error, Result};
use crate::shape::Shape;
use crate::tokenizer::Tokenizer;

const MAGIC: &[u8; 4] = b"GGUF";
/// Longest array kept: tokens and merges.
const MAX_ARRAY: u64 = 1 << 21;
/// Most fields and tensors: a real file has some hundreds of each, and each takes memory.
const MAX_FIELDS: u64 = 1 << 12;
const MAX_TENSORS: u64 = 1 << 16;
/// Arrays that are used; others are skipped.
const KEPT: [&str; 4] =
    ["tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.scores", "tokenizer.ggml.token_type"];

/// The description and tensors of a file.
pub(super) fn open(path: &Path) -> Result<(Config, Archive)> {
    let (file, length) = open_file(path)?;
    let mut head = Head { reader: BufReader::new(file), at: 0, length };
    let (fields, stored, data) = head.parse().map_err(|reason| unusable(path, reason))?;
    let mut archive = Archive::default();
    let file = archive.add_file(path, head.reader.into_inner());
    for (name, dims, code, offset) in stored {
        let Some(dtype) = Dtype::of_gguf(code) else {
            let reason = format!("type {code}; this program reads F32, F16, BF16, Q8_0, Q4_0 and Q4_1");
            return Err(Error::malformed(name, reason));
        };
        let bytes = size(dtype, &dims).map_err(|reason| Error::malformed(&name, reason))?;
        let end = data.checked_add(offset).and_then(|from| from.checked_add(bytes));
        if end.is_none_or(|end| end > length) {
            let reason =
                format!("needs {bytes} bytes at {offset} of the data, the file ends before: it is cut short");
            return Err(Error::malformed(name, reason));
        }
        archive.tensors.insert(name, Entry { file, offset: data + offset, dtype, dims });
    }
    Ok((Config::new("GGUF metadata", Value::Object(fields))?, archive))
}

/// Shape, filled book and tokenizer of a Llama file.
pub(super) fn llama<'a>(
    config: &Config,
    archive: &'a Archive,
) -> Result<(Shape, Book<'a>, Option<Tokenizer>)> {
    let architecture = config.text("general.architecture").unwrap_or("none");
    if architecture != "llama" {
        return Err(
            config.refuse("general.architecture", format!("is {architecture:?}; this program reads llama"))
        );
    }
    let mut book = Book::new(archive, "");
    let of = |field: &str| format!("llama.{field}");
    let (heads, d_model) = (config.size(&of("attention.head_count"))?, config.size(&of("embedding_length"))?);
    let own = config.head_dim(d_model, heads, &of("attention.head_count"))?;
    let head_dim = config.size_or(&of("attention.key_length"), Some(own))?;
    if config.size_or(&of("rope.dimension_count"), Some(head_dim))? != head_dim {
        return Err(
            config.refuse(&of("rope.dimension_count"), format!("is not the head's width, {head_dim}"))
        );
    }
    if let Some(kind) = config.text(&of("rope.scaling.type")).filter(|kind| *kind != "none") {
        return Err(config.refuse(
            &of("rope.scaling.type"),
            format!("is {kind:?}; this program reads plain rotary positions"),
        ));
    }
    let tokens = config.get("tokenizer.ggml.tokens").and_then(Value::as_array).map(Vec::len);
    let rows = book.dims("token_embd.weight").and_then(|dims| dims.first().copied());
    let sizes = Sizes {
        layers: config.size(&of("block_count"))?,
        d_model,
        heads,
        kv_heads: config.size_or(&of("attention.head_count_kv"), Some(heads))?,
        head_dim,
        ffn: config.size(&of("feed_forward_length"))?,
        vocab: config.size_or(&of("vocab_size"), rows.or(tokens))?,
        context: config.size(&of("context_length"))?,
        norm_eps: single(config.number_or(&of("attention.layer_norm_rms_epsilon"), 1e-5)?),
        rotary_base: single(config.number_or(&of("rope.freq_base"), 10_000.0)?),
        tied_head: !book.has("output.weight"),
    };
    let shape = llama::shape_of(&sizes, llama::has_bias(&book, &llama::GGUF));
    llama::recipes(&mut book, &shape, &llama::GGUF)?;
    Ok((shape, book, super::vocabulary::of_gguf(config)?))
}

/// The shortest decimal of a number that was stored as f32: `1e-5`, not its f32 neighbour.
fn single(x: f64) -> f64 {
    (x as f32).to_string().parse().unwrap_or(x)
}

/// Name, row-major dimensions, type and offset of a tensor.
type Stored = (String, Vec<usize>, u32, u64);

struct Head {
    reader: BufReader<File>,
    at: u64,
    length: u64,
}

type Parsed<T> = std::result::Result<T, String>;

impl Head {
    fn parse(&mut self) -> Parsed<(Map<String, Value>, Vec<Stored>, u64)> {
        if &self.array::<4>()? != MAGIC {
            return Err("does not begin with GGUF".into());
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(format!("GGUF version {version}, expected 2 or 3"));
        }
        let (tensors, count) = (self.u64()?, self.u64()?);
        if tensors > MAX_TENSORS || count > MAX_FIELDS {
            return Err(format!(
                "claims {tensors} tensors and {count} fields, at most {MAX_TENSORS} and {MAX_FIELDS}"
            ));
        }
        let mut fields = Map::new();
        for _ in 0..count {
            let key = self.text()?;
            let kind = self.u32()?;
            if let Some(value) = self.value(&key, kind)? {
                fields.insert(key, value);
            }
        }
        let mut stored = vec![];
        for _ in 0..tensors {
            stored.push(self.tensor()?);
        }
        let align = fields.get("general.alignment").and_then(Value::as_u64).unwrap_or(32);
        if !align.is_power_of_two() || align > 1 << 16 {
            return Err(format!("`general.alignment` is {align}, expected a power of two"));
        }
        Ok((fields, stored, self.at.next_multiple_of(align)))
    }

    fn tensor(&mut self) -> Parsed<Stored> {
        let name = self.text()?;
        let count = self.u32()?;
        if count > 4 {
            return Err(format!("tensor `{name}` has {count} dimensions, at most 4"));
        }
        let mut dims = vec![];
        for _ in 0..count {
            let dim = self.u64()?;
            dims.push(usize::try_from(dim).map_err(|_| format!("tensor `{name}` has a dimension of {dim}"))?);
        }
        // Fastest first in the file.
        dims.reverse();
        Ok((name, dims, self.u32()?, self.u64()?))
    }

    /// A value, or `None` for an array that nothing here uses.
    fn value(&mut self, key: &str, kind: u32) -> Parsed<Option<Value>> {
        Ok(Some(match kind {
            0 => self.array::<1>()?[0].into(),
            1 => self.array::<1>()?[0].cast_signed().into(),
            2 => u16::from_le_bytes(self.array()?).into(),
            3 => i16::from_le_bytes(self.array()?).into(),
            4 => self.u32()?.into(),
            5 => i32::from_le_bytes(self.array()?).into(),
            6 => f64::from(f32::from_le_bytes(self.array()?)).into(),
            7 => (self.array::<1>()?[0] != 0).into(),
            8 => self.text()?.into(),
            9 => return self.list(key),
            10 => self.u64()?.into(),
            11 => i64::from_le_bytes(self.array()?).into(),
            12 => f64::from_le_bytes(self.array()?).into(),
            other => return Err(format!("field `{key}` is of type {other}, expected 0 to 12")),
        }))
    }

    fn list(&mut self, key: &str) -> Parsed<Option<Value>> {
        let (kind, count) = (self.u32()?, self.u64()?);
        if kind == 9 {
            return Err(format!("field `{key}` is an array of arrays"));
        }
        let kept = KEPT.contains(&key);
        // Every element takes a byte at least.
        if count > self.length - self.at || kept && count > MAX_ARRAY {
            return Err(format!("field `{key}` claims {count} elements"));
        }
        let mut out = vec![];
        for _ in 0..count {
            let value = self.value(key, kind)?;
            out.extend(value.filter(|_| kept));
        }
        Ok(kept.then_some(Value::Array(out)))
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let mut bytes = [0; N];
        self.reader
            .read_exact(&mut bytes)
            .map_err(|_| format!("ends within its header, at byte {}", self.length))?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn u32(&mut self) -> Parsed<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Parsed<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Parsed<String> {
        let length = self.u64()?;
        if length > self.length - self.at {
            return Err(format!("claims a text of {length} bytes in a file of {}", self.length));
        }
        let mut bytes = Vec::new();
        (&mut self.reader).take(length).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        self.at += length;
        String::from_utf8(bytes).map_err(|_| format!("has a text that is not UTF-8 before byte {}", self.at))
    }
}

/// The GGUF file of a folder that holds one and no `config.json`.
///
/// # Errors
/// Several of them: the caller says which.
pub(super) fn only_file(dir: &Path) -> Result<Option<PathBuf>> {
    if !dir.is_dir() || dir.join("config.json").is_file() {
        return Ok(None);
    }
    let entries = std::fs::read_dir(dir).map_err(|e| Error::malformed(shown(dir), e))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "gguf")).collect();
    match found.len() {
        0 | 1 => Ok(found.pop()),
        n => {
            let reason = format!("{n} GGUF files and no `config.json`: name one of the files");
            Err(Error::malformed(shown(dir), reason))
        }
    }
}

/// Whether a file begins like GGUF.
pub(super) fn is_gguf(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = File::open(path).and_then(|mut f| {
        f.seek(SeekFrom::Start(0))?;
        f.read_exact(&mut magic)
    });
    read.is_ok() && &magic == MAGIC
}
