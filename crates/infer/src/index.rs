//! Private search: documents that an encrypted question is compared with.

use crate::error::{Error, Result};

/// Vectors of documents, in the clear, on the server. A plan for a model of sentence vectors that
/// has one ([`crate::Options::index`]) pools the question's hidden states and multiplies them with
/// all documents before anything is returned: text, vector and scores of a question stay encrypted.
#[derive(Clone, PartialEq)]
pub struct Index {
    width: usize,
    vectors: Vec<f64>,
}

impl Index {
    /// One row of `width` numbers for each document, in the order of the scores.
    ///
    /// # Errors
    /// [`Error::Malformed`] for no documents, rows of another length, or a number that is not
    /// finite.
    pub fn new(width: usize, vectors: Vec<f64>) -> Result<Self> {
        let refuse = |reason: String| Err(Error::Malformed { what: "an index".into(), reason });
        if width == 0 || vectors.is_empty() || !vectors.len().is_multiple_of(width) {
            return refuse(format!("{} numbers do not make rows of {width}", vectors.len()));
        }
        if let Some(at) = vectors.iter().position(|x| !x.is_finite()) {
            return refuse(format!("document {} has a number that is not finite", at / width));
        }
        Ok(Self { width, vectors })
    }

    /// How many documents there are.
    pub fn documents(&self) -> usize {
        self.vectors.len() / self.width
    }

    /// Numbers of a document.
    pub fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.vectors.chunks_exact(self.width)
    }

    /// The largest score of a vector whose numbers are within one.
    pub(crate) fn largest_score(&self) -> f64 {
        let sum = |row: &[f64]| row.iter().map(|x| x.abs()).sum::<f64>();
        self.rows().map(sum).fold(0.0, f64::max)
    }

    pub(crate) fn hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.width as u64).to_le_bytes());
        self.vectors.iter().for_each(|x| {
            hasher.update(&x.to_le_bytes());
        });
        hasher.finalize()
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Index({} documents of {})", self.documents(), self.width)
    }
}

/// What the owner of a question reads out of the answer to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Dot product of the question's vector, at length 1, with each document: the cosine where the
    /// documents have length 1 too.
    pub scores: Vec<f64>,
    /// The question's own vector, at length 1.
    pub vector: Vec<f64>,
}

impl Found {
    /// Out of the decrypted numbers of an answer: the scores of the pooled vector as it is, then
    /// that vector. A length is nothing that a circuit can divide by cheaply, and none of the
    /// server's business.
    ///
    /// # Errors
    /// [`Error::Malformed`] for an answer of no more than `width` numbers.
    pub fn of(answer: &[f64], width: usize) -> Result<Self> {
        let Some(documents) = answer.len().checked_sub(width).filter(|&count| count > 0) else {
            let reason = format!("{} numbers hold no scores beside a vector of {width}", answer.len());
            return Err(Error::Malformed { what: "the answer to a question".into(), reason });
        };
        let (scores, vector) = answer.split_at(documents);
        let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
        let unit = |row: &[f64]| row.iter().map(|x| if length > 0.0 { x / length } else { *x }).collect();
        Ok(Self { scores: unit(scores), vector: unit(vector) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_of_bad_numbers_is_refused() {
        for (width, vectors) in [(0, vec![1.0]), (2, vec![]), (2, vec![1.0; 3]), (1, vec![0.0, f64::NAN])] {
            assert!(matches!(Index::new(width, vectors), Err(Error::Malformed { .. })), "{width}");
        }
        let index = Index::new(2, vec![3.0, -4.0, 0.5, 0.5]).unwrap();
        assert_eq!((index.documents(), index.largest_score()), (2, 7.0));
        assert_ne!(index.hash(), Index::new(2, vec![3.0, -4.0, 0.5, 0.25]).unwrap().hash());
        assert_ne!(index.hash(), Index::new(4, vec![3.0, -4.0, 0.5, 0.5]).unwrap().hash());
    }

    #[test]
    fn scores_are_divided_by_the_length_of_the_question() {
        let found = Found::of(&[10.0, -5.0, 3.0, 4.0], 2).unwrap();
        assert_eq!(found, Found { scores: vec![2.0, -1.0], vector: vec![0.6, 0.8] });
        assert!(Found::of(&[1.0, 2.0], 2).is_err());
        assert_eq!(Found::of(&[1.0, 0.0, 0.0], 2).unwrap().vector, [0.0, 0.0]);
    }
}
