//! Rows of public tokens at the beginning of every sequence of a forward pass.

use burn::tensor::Tensor;

/// The first `count` of every `rows` rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Public {
    count: usize,
    rows: usize,
}

impl Public {
    /// `None` without public tokens.
    pub(crate) fn new(count: usize, rows: usize) -> Option<Self> {
        (count > 0).then_some(Self { count, rows })
    }

    /// Rows of public tokens and those of texts, each `[groups, rows, rest]`. Rows are the third
    /// dimension of four, else in the first.
    pub(crate) fn parts<const D: usize>(self, x: &Tensor<D>) -> [Tensor<3>; 2] {
        let Self { count, rows } = self;
        let dims = x.dims();
        let groups = if D == 4 { dims[0] * dims[1] } else { dims[0] / rows };
        let rest = dims.iter().product::<usize>() / (groups * rows).max(1);
        let x = x.clone().reshape([groups, rows, rest]);
        [0..count, count..rows].map(|part| x.clone().slice([0..groups, part, 0..rest]))
    }
}

/// `[batch * rows, width]` without the rows of public tokens.
pub(crate) fn texts(public: Option<Public>, x: Tensor<2>) -> Tensor<2> {
    let Some(public) = public else { return x };
    let [_, text] = public.parts(&x);
    let [groups, rows, width] = text.dims();
    text.reshape([groups * rows, width])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{DType, Device, TensorData};

    fn values<const D: usize>(x: Tensor<D>) -> Vec<f64> {
        x.into_data().iter::<f64>().collect()
    }

    #[test]
    fn rows_of_public_tokens_are_told_from_those_of_texts_in_every_layout() {
        let counted = |count: usize| (0..count).map(|i| i as f64).collect::<Vec<_>>();
        let device = Device::flex();
        // Two sequences of three rows, the first of which is public.
        let public = Public::new(1, 3).unwrap();
        let flat = Tensor::<2>::from_data(TensorData::new(counted(12), [6, 2]), (&device, DType::F64));
        assert_eq!(values(texts(Some(public), flat.clone())), [2., 3., 4., 5., 8., 9., 10., 11.]);
        let [before, text] = public.parts(&flat);
        assert_eq!((before.dims(), text.dims()), ([2, 1, 2], [2, 2, 2]));
        assert_eq!(values(before), [0., 1., 6., 7.]);
        // One sequence, two heads, three rows of two keys.
        let heads = Tensor::<4>::from_data(TensorData::new(counted(12), [1, 2, 3, 2]), (&device, DType::F64));
        let [before, text] = public.parts(&heads);
        assert_eq!(values(before), [0., 1., 6., 7.]);
        assert_eq!(values(text), [2., 3., 4., 5., 8., 9., 10., 11.]);
        assert!(Public::new(0, 3).is_none());
    }
}
