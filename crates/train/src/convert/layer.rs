//! One attention layer under a new operator, apart from its model.

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::states::Picked;
use crate::arch::Arch;
use crate::attention::{Attention, Tables};
use crate::error::Result;
use crate::layers::Init;
use crate::learned::Learned;
use crate::loss::{relative_error, scalar};
use crate::params::{HostParam, gradients, push};
use crate::probe::Probe;
use crate::public::{Public, texts};
use crate::settings::{Learn, RangeLoss};

/// A layer whose parameters live on the host under their full names.
pub(super) struct Layer {
    prefix: String,
    arch: Arch,
    device: Device,
    module: Attention,
    pub(super) params: Vec<HostParam>,
}

impl Layer {
    /// The attention of block `index` among a model's parameters.
    pub(super) fn new(arch: &Arch, params: &[HostParam], index: usize, device: &Device) -> Result<Self> {
        let prefix = format!("layers.{index}.attn.");
        let params: Vec<HostParam> = params.iter().filter(|p| p.name.starts_with(&prefix)).cloned().collect();
        let device = device.clone().autodiff();
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let module = Attention::new(arch, &mut Init { device: &device, dtype: DType::F32, rng: &mut rng });
        let mut layer = Self { prefix, arch: arch.clone(), device, module, params };
        layer.push()?;
        Ok(layer)
    }

    /// Picks what learns.
    pub(super) fn learn(&mut self, learn: &Learn, seed: u64) -> Result<Learned> {
        let learned = Learned::new(&mut self.params, learn, seed);
        self.push()?;
        Ok(learned)
    }

    /// Writes the host's values into the module.
    pub(super) fn push(&mut self) -> Result<()> {
        let short = |p: &HostParam| HostParam { name: p.name[self.prefix.len()..].to_owned(), ..p.clone() };
        let short: Vec<HostParam> = self.params.iter().map(short).collect();
        self.module = push(self.module.clone(), &short)?;
        Ok(())
    }

    /// Relative squared error of the output, and its gradients with those of the range loss.
    pub(super) fn loss(&self, picked: Picked, range: Option<RangeLoss>) -> Result<(f64, Vec<Vec<f32>>)> {
        let mut probe = range.map_or(Probe::off(), |range| Probe::penalise(range.limits));
        let Picked { input, output: wanted, keep, batch } = picked;
        let input = Tensor::from_inner(input);
        let tables = self.tables(&input, batch, keep.clone().map(Tensor::from_inner));
        let public = self.public(&wanted, batch);
        probe.behind(public);
        let found = self.module.forward(input, batch, &tables, 0, &mut probe);
        let [found, wanted] = [found, wanted].map(|x| texts(public, x));
        let keep = keep.map(|keep| texts(public, column(keep)));
        let Some(error) = relative_error(vec![wanted], vec![found], keep.as_ref()) else {
            return Ok((0.0, Vec::new()));
        };
        let value = scalar(&error);
        let total = match range.zip(probe.take_penalty()) {
            Some((range, penalty)) => error.add(penalty.mul_scalar(range.weight)),
            None => error,
        };
        Ok((value, gradients(&self.module, &mut total.backward())))
    }

    /// Relative squared error of the output.
    pub(super) fn error(&self, picked: Picked) -> f64 {
        let Picked { input, output: wanted, keep, batch } = picked;
        let tables = self.tables(&input, batch, keep.clone());
        let found = self.module.valid().forward(input, batch, &tables, 0, &mut Probe::off());
        let public = self.public(&wanted, batch);
        let [mut found, mut wanted] = [found, wanted].map(|x| texts(public, x));
        if let Some(keep) = keep {
            let column = texts(public, column(keep));
            (found, wanted) = (found.mul(column.clone()), wanted.mul(column));
        }
        let difference = found.sub(wanted.clone());
        let [error, size] = [difference, wanted].map(|x| scalar(&x.clone().mul(x).mean()));
        error / size.max(f64::from(f32::MIN_POSITIVE))
    }

    /// Device of the plain tensors.
    pub(super) fn plain(&self) -> Device {
        self.device.clone().inner()
    }

    /// Multiplies the queries of one head, or of all.
    pub(super) fn scale_queries(&mut self, head: Option<usize>, factor: f32) {
        let (size, width) = (self.arch.shape.head_dim, self.arch.shape.attention_width());
        for param in self.params.iter_mut().filter(|p| p.name.contains(".attn.q.")) {
            for row in param.data.chunks_mut(width) {
                let columns = head.map_or(0..width, |h| h * size..(h + 1) * size);
                row[columns].iter_mut().for_each(|x| *x *= factor);
            }
        }
    }

    /// Rows of public tokens in states of `batch` sequences.
    fn public(&self, states: &Tensor<2>, batch: usize) -> Option<Public> {
        Public::new(self.arch.prefix.len(), states.dims()[0] / batch)
    }

    fn tables(&self, like: &Tensor<2>, batch: usize, keep: Option<Tensor<2>>) -> Tables {
        Tables::new(&self.arch, batch, like.dims()[0] / batch, keep, &like.device(), DType::F32)
    }
}

/// `[batch, rows]` as `[batch * rows, 1]`.
fn column(keep: Tensor<2>) -> Tensor<2> {
    let [batch, rows] = keep.dims();
    keep.reshape([batch * rows, 1])
}
