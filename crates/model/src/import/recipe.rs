//! How a tensor of ours is made from one of theirs.

use std::collections::{BTreeMap, BTreeSet};

use super::archive::Archive;
use super::dtype::Dtype;
use crate::error::{Error, Result};
use crate::shape::Shape;

/// Heads, which carry no prefix of the body.
const OUTSIDE: [&str; 3] = ["embed_out", "lm_head", "classifier"];

/// The bias of a linear map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bias {
    /// The model has none.
    None,
    /// This map has none, others have: zeros.
    Zeros,
    /// The file has it.
    File,
}

/// A tensor of ours.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    /// Their tensor; zeros if there is none.
    pub(super) source: Option<String>,
    /// Its dimensions, as they must be.
    pub(super) dims: Vec<usize>,
    /// Rows of theirs in our order; all in theirs where empty.
    pub(super) rows: Vec<usize>,
    /// Theirs is `[out, in]`, ours `[in, out]`.
    pub(super) transposed: bool,
    /// The first row of another tensor, added to every row.
    pub(super) plus_first_row_of: Option<String>,
}

/// Recipes for a checkpoint, and what of it stays unused.
pub(super) struct Book<'a> {
    archive: &'a Archive,
    prefix: String,
    pub(super) recipes: BTreeMap<String, Recipe>,
    used: BTreeSet<String>,
    pub(super) left_out: Vec<String>,
}

impl<'a> Book<'a> {
    /// Tensors are looked up with `prefix` before their name where the file has it.
    pub(super) fn new(archive: &'a Archive, prefix: &str) -> Self {
        let prefixed = archive.tensors.keys().any(|name| name.starts_with(prefix));
        let prefix = if prefixed { prefix.to_owned() } else { String::new() };
        Self { archive, prefix, recipes: BTreeMap::new(), used: BTreeSet::new(), left_out: vec![] }
    }

    /// The name under which the file has a tensor.
    fn find(&self, name: &str) -> Option<String> {
        let full = format!("{}{name}", self.prefix);
        [full, name.to_owned()].into_iter().find(|n| self.archive.tensors.contains_key(n))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Dimensions of a tensor of the file.
    pub(super) fn dims(&self, name: &str) -> Option<&'a [usize]> {
        Some(&self.archive.tensors.get(&self.find(name)?)?.dims)
    }

    fn check(&mut self, theirs: &str, dims: &[usize]) -> Result<String> {
        let Some(name) = self.find(theirs) else {
            let bare = OUTSIDE.iter().any(|head| theirs.starts_with(head));
            let name = if bare { theirs.to_owned() } else { format!("{}{theirs}", self.prefix) };
            return Err(Error::MissingTensor { name, expected: dims.to_vec() });
        };
        let entry = &self.archive.tensors[&name];
        if entry.dims != dims {
            return Err(Error::TensorShape { name, expected: dims.to_vec(), found: entry.dims.clone() });
        }
        if let Dtype::Whole(_) = entry.dtype {
            let reason =
                format!("type {:?}, expected F32, F16 or BF16: whole numbers are no weights", entry.dtype);
            return Err(Error::malformed(name, reason));
        }
        self.used.insert(name.clone());
        Ok(name)
    }

    fn put(
        &mut self,
        ours: &str,
        theirs: &str,
        dims: &[usize],
        rows: Vec<usize>,
        transposed: bool,
    ) -> Result<()> {
        let source = Some(self.check(theirs, dims)?);
        let recipe = Recipe { source, dims: dims.to_vec(), rows, transposed, plus_first_row_of: None };
        self.recipes.insert(ours.to_owned(), recipe);
        Ok(())
    }

    /// A tensor as it is.
    pub(super) fn plain(&mut self, ours: &str, theirs: &str, dims: &[usize]) -> Result<()> {
        self.put(ours, theirs, dims, vec![], false)
    }

    /// Rows of a table, each plus the first row of another.
    pub(super) fn table_plus(&mut self, ours: &str, theirs: &str, dims: &[usize], other: &str) -> Result<()> {
        self.plain(ours, theirs, dims)?;
        if let Some(found) = self.dims(other) {
            let width = dims.last().copied().unwrap_or(0);
            let expected = [found.first().copied().unwrap_or(1).max(1), width];
            let other = self.check(other, &expected)?;
            if let Some(recipe) = self.recipes.get_mut(ours) {
                recipe.plus_first_row_of = Some(other);
            }
        }
        Ok(())
    }

    /// A linear map whose file has it as `[out, in]`.
    pub(super) fn linear(
        &mut self,
        ours: &str,
        theirs: &str,
        size: (usize, usize),
        bias: Bias,
    ) -> Result<()> {
        self.rows(ours, theirs, size, &[], bias)
    }

    /// The rows of a map `[out, in]` of the file, in our order; all as they are where `rows` is
    /// empty.
    pub(super) fn rows(
        &mut self,
        ours: &str,
        theirs: &str,
        (input, output): (usize, usize),
        rows: &[usize],
        bias: Bias,
    ) -> Result<()> {
        let weight = format!("{theirs}.weight");
        self.put(&format!("{ours}.weight"), &weight, &[output, input], rows.to_vec(), true)?;
        let ours = format!("{ours}.bias");
        match bias {
            Bias::None => {}
            Bias::File => self.put(&ours, &format!("{theirs}.bias"), &[output], rows.to_vec(), false)?,
            Bias::Zeros => {
                let dims = vec![if rows.is_empty() { output } else { rows.len() }];
                let zeros =
                    Recipe { source: None, dims, rows: vec![], transposed: false, plus_first_row_of: None };
                self.recipes.insert(ours, zeros);
            }
        }
        Ok(())
    }

    /// A normalisation, under its new or its TensorFlow-era names.
    pub(super) fn norm(&mut self, ours: &str, theirs: &str, width: usize, bias: bool) -> Result<()> {
        let old = self.has(&format!("{theirs}.gamma"));
        let (gain, shift) = if old { ("gamma", "beta") } else { ("weight", "bias") };
        self.plain(&format!("{ours}.gain"), &format!("{theirs}.{gain}"), &[width])?;
        if bias {
            self.plain(&format!("{ours}.bias"), &format!("{theirs}.{shift}"), &[width])
        } else {
            Ok(())
        }
    }

    /// Settles the tensors that no recipe uses: a buffer, by the end of its name, goes without a
    /// word; a part that this model has no use for is listed; anything else is refused.
    pub(super) fn settle(&mut self, buffers: &[&str], unused: &[&str]) -> Result<()> {
        for name in self.archive.tensors.keys().filter(|name| !self.used.contains(*name)) {
            let bare = name.strip_prefix(&self.prefix).unwrap_or(name);
            if unused.iter().any(|part| bare.starts_with(part)) {
                self.left_out.push(name.clone());
            } else if !buffers.iter().any(|end| name.ends_with(end)) {
                return Err(Error::StrayTensor { name: name.clone() });
            }
        }
        Ok(())
    }

    /// The recipes, which must be for the tensors of the shape.
    pub(super) fn finish(self, shape: &Shape) -> Result<(BTreeMap<String, Recipe>, Vec<String>)> {
        shape.validate()?;
        for (name, expected) in shape.tensors() {
            let Some(recipe) = self.recipes.get(&name) else {
                return Err(Error::MissingTensor { name, expected });
            };
            let found = recipe.result_dims();
            if found != expected {
                return Err(Error::TensorShape { name, expected, found });
            }
        }
        Ok((self.recipes, self.left_out))
    }
}

impl Recipe {
    fn result_dims(&self) -> Vec<usize> {
        let mut dims = self.dims.clone();
        if let (Some(first), false) = (dims.first_mut(), self.rows.is_empty()) {
            *first = self.rows.len();
        }
        if self.transposed {
            dims.reverse();
        }
        dims
    }

    /// The values.
    pub(super) fn cook(&self, archive: &Archive) -> Result<Vec<f32>> {
        let Some(source) = &self.source else { return Ok(vec![0.0; self.dims.iter().product()]) };
        let mut data = archive.read(source)?;
        let width = self.dims.last().copied().filter(|_| self.dims.len() > 1).unwrap_or(1);
        if let Some(other) = &self.plus_first_row_of {
            let first = archive.read(other)?;
            for row in data.chunks_exact_mut(width) {
                row.iter_mut().zip(&first).for_each(|(x, y)| *x += y);
            }
        }
        if !self.rows.is_empty() {
            data = self.rows.iter().flat_map(|&r| &data[r * width..(r + 1) * width]).copied().collect();
        }
        if self.transposed {
            let rows = data.len() / width.max(1);
            data = (0..data.len()).map(|at| data[at % rows * width + at / rows]).collect();
        }
        if let Some(index) = data.iter().position(|x| !x.is_finite()) {
            return Err(Error::NotFinite { name: source.clone(), index });
        }
        Ok(data)
    }
}

/// For each row in the order of two halves, its place among interleaved pairs: rotary layouts of
/// llama2.c and GGUF.
pub(super) fn halves_of_pairs(rows: usize, head: usize) -> Vec<usize> {
    let half = head / 2;
    (0..rows).map(|row| row / head * head + 2 * (row % head % half) + row % head / half).collect()
}
