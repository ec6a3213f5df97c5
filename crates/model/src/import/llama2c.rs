//! llama2.c checkpoints, version 0: seven numbers, then every tensor as f32.

use std::io::Read;
use std::path::Path;

use super::archive::{Archive, Entry, open_file, unusable};
use super::dtype::Dtype;
use super::llama::{self, Sizes};
use super::recipe::Book;
use crate::error::Result;
use crate::shape::Shape;

/// The file's parts under the names of a GGUF file, whose rotary layout it shares.
pub(super) fn open(path: &Path) -> Result<(Shape, Archive)> {
    let refuse =
        |reason: String| unusable(path, format!("{reason}: a llama2.c version 0 checkpoint is expected"));
    let (mut file, length) = open_file(path)?;
    let mut head = [0; 28];
    file.read_exact(&mut head).map_err(|_| refuse(format!("{length} bytes, shorter than its header")))?;
    let header: Vec<i32> = head.as_chunks::<4>().0.iter().map(|&b| i32::from_le_bytes(b)).collect();
    // Only the vocabulary's sign means something: negative for a head of its own.
    let names = ["dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len"];
    let size = |i: usize| {
        let value = if i == 5 { i64::from(header[i]).abs() } else { i64::from(header[i]) };
        let size = usize::try_from(value).ok().filter(|s| (1..=1 << 20).contains(s));
        size.ok_or_else(|| refuse(format!("`{}` is {} in its header", names[i], header[i])))
    };
    let (d, heads, kv_heads) = (size(0)?, size(3)?, size(4)?);
    if !d.is_multiple_of(heads) || !heads.is_multiple_of(kv_heads) || (d / heads) % 2 == 1 {
        return Err(refuse(format!("{heads} heads over {kv_heads} key/value heads at width {d} cannot be")));
    }
    let sizes = Sizes {
        layers: size(2)?,
        d_model: d,
        heads,
        kv_heads,
        head_dim: d / heads,
        ffn: size(1)?,
        vocab: size(5)?,
        context: size(6)?,
        norm_eps: 1e-5,
        rotary_base: 10_000.0,
        tied_head: header[5] > 0,
    };
    let shape = llama::shape_of(&sizes, false);
    shape.validate()?;
    let mut archive = Archive::default();
    let file = archive.add_file(path, file);
    let mut at = 28u64;
    for (name, dims) in layout(&sizes) {
        let bytes = 4 * dims.iter().map(|&d| d as u64).product::<u64>();
        if at + bytes > length {
            return Err(refuse(format!("ends within tensor `{name}`, at byte {length} of {}", at + bytes)));
        }
        if !name.is_empty() {
            archive.tensors.insert(name, Entry { file, offset: at, dtype: Dtype::F32, dims });
        }
        at += bytes;
    }
    if at != length {
        return Err(refuse(format!("{length} bytes, but its header describes {at}")));
    }
    Ok((shape, archive))
}

pub(super) fn recipes<'a>(archive: &'a Archive, shape: &Shape) -> Result<Book<'a>> {
    let mut book = Book::new(archive, "");
    llama::recipes(&mut book, shape, &llama::GGUF)?;
    Ok(book)
}

/// Tensors in file order, one by one, as a header may claim any number; tables of cosines and
/// sines, computed anew here, have no name.
fn layout(s: &Sizes) -> impl Iterator<Item = (String, Vec<usize>)> {
    let (d, k, f, layers) = (s.d_model, s.kv_heads * s.head_dim, s.ffn, s.layers);
    let each = [
        ("attn_norm", vec![d]),
        ("attn_q", vec![d, d]),
        ("attn_k", vec![k, d]),
        ("attn_v", vec![k, d]),
        ("attn_output", vec![d, d]),
        ("ffn_norm", vec![d]),
        ("ffn_gate", vec![f, d]),
        ("ffn_down", vec![d, f]),
        ("ffn_up", vec![f, d]),
    ];
    let each = each.into_iter().flat_map(move |(name, dims)| {
        (0..layers).map(move |l| (format!("blk.{l}.{name}.weight"), dims.clone()))
    });
    let table = ("token_embd.weight".to_owned(), vec![s.vocab, d]);
    let end = [("output_norm.weight".to_owned(), vec![d]), (String::new(), vec![s.context, s.head_dim])];
    let head = (!s.tied_head).then(|| ("output.weight".to_owned(), vec![s.vocab, d]));
    std::iter::once(table).chain(each).chain(end).chain(head)
}
