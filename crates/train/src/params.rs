//! A model's parameters as named host arrays: what the optimiser, checkpoints, imports and exports
//! work on.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Gradients, Tensor, TensorData};

use crate::error::{Error, Result};

/// One named tensor on the host, row major.
#[derive(Debug, Clone, PartialEq)]
pub struct HostParam {
    /// Path of the field, `layers.0.attn.q.weight`.
    pub name: String,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Values.
    pub data: Vec<f32>,
    /// False for tables that belong to the model but are not trained (the frozen epsilons).
    pub trained: bool,
}

impl HostParam {
    /// A tensor, trained unless its name says that it is calibrated.
    pub fn new(name: impl Into<String>, shape: &[usize], data: Vec<f32>) -> Self {
        let name = name.into();
        let trained = is_trained(&name);
        Self { name, shape: shape.to_vec(), data, trained }
    }
}

/// Copies all parameters of a module to the host, in field order.
pub fn pull<M: Module>(module: &M) -> Vec<HostParam> {
    let mut visitor = Pull { path: Vec::new(), out: Vec::new() };
    module.visit(&mut visitor);
    visitor.out
}

/// Overwrites all parameters of a module; gradients are tracked where `trained` says so and the
/// module lives on a recording device. `params` must be in the order of [`pull`], with the same
/// names and shapes.
pub fn push<M: Module>(module: M, params: &[HostParam]) -> Result<M> {
    write(module, params, false)
}

/// As [`push`], for the tensors that learn: the others are as they were.
pub(crate) fn push_trained<M: Module>(module: M, params: &[HostParam]) -> Result<M> {
    write(module, params, true)
}

fn write<M: Module>(module: M, params: &[HostParam], trained_only: bool) -> Result<M> {
    let mut mapper = Push { path: Vec::new(), params: params.iter(), trained_only, error: None };
    let module = module.map(&mut mapper);
    match (mapper.error, mapper.params.next()) {
        (Some(error), _) => Err(error),
        (None, Some(extra)) => {
            Err(Error::Shape { name: extra.name.clone(), expected: Vec::new(), found: extra.shape.clone() })
        }
        (None, None) => Ok(module),
    }
}

/// Reorders `found` to the order of `wanted`, refusing missing, surplus or misshapen tensors.
pub fn align(wanted: &[HostParam], mut found: Vec<HostParam>) -> Result<Vec<HostParam>> {
    let mut out = Vec::with_capacity(wanted.len());
    for want in wanted {
        let missing =
            || Error::Shape { name: want.name.clone(), expected: want.shape.clone(), found: Vec::new() };
        let at = found.iter().position(|p| p.name == want.name).ok_or_else(missing)?;
        let mut param = found.swap_remove(at);
        if param.shape != want.shape {
            return Err(Error::Shape { name: param.name, expected: want.shape.clone(), found: param.shape });
        }
        param.trained = want.trained;
        out.push(param);
    }
    match found.pop() {
        Some(extra) => Err(Error::Shape { name: extra.name, expected: Vec::new(), found: extra.shape }),
        None => Ok(out),
    }
}

/// Gradients in the order of [`pull`]; parameters that the loss did not reach have zeros, those
/// that are not trained none.
pub fn gradients<M: Module>(module: &M, grads: &mut Gradients) -> Vec<Vec<f32>> {
    let mut visitor = Grads { grads, out: Vec::new() };
    module.visit(&mut visitor);
    visitor.out
}

struct Pull {
    path: Vec<String>,
    out: Vec<HostParam>,
}

impl ModuleVisitor for Pull {
    fn enter_module(&mut self, name: &str, _kind: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _kind: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.join(".");
        let value = param.val();
        let shape = value.dims().to_vec();
        self.out.push(HostParam::new(name, &shape, to_host(value)));
    }
}

struct Push<'a> {
    path: Vec<String>,
    params: std::slice::Iter<'a, HostParam>,
    trained_only: bool,
    error: Option<Error>,
}

impl ModuleMapper for Push<'_> {
    fn enter_module(&mut self, name: &str, _kind: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _kind: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.join(".");
        let value = param.val();
        let expected = value.dims().to_vec();
        let next = self.params.next();
        match next {
            Some(host) if host.name == name && host.shape == expected => {
                if self.trained_only && !host.trained {
                    return param;
                }
                let data = TensorData::new(host.data.clone(), host.shape.clone());
                let device = value.device();
                let recording = device.is_autodiff();
                let dtype = value.dtype();
                let mut tensor = Tensor::from_data(data.convert_dtype(dtype), (&device, dtype));
                if recording && host.trained {
                    tensor = tensor.require_grad();
                }
                Param::initialized(param.id, tensor)
            }
            other => {
                self.error.get_or_insert(Error::Shape {
                    name,
                    expected,
                    found: other.map(|p| p.shape.clone()).unwrap_or_default(),
                });
                param
            }
        }
    }
}

struct Grads<'a> {
    grads: &'a mut Gradients,
    out: Vec<Vec<f32>>,
}

impl ModuleVisitor for Grads<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        self.out.push(match value.grad_remove(self.grads) {
            Some(grad) => to_host(grad),
            None if value.is_require_grad() => vec![0.0; value.dims().iter().product()],
            None => Vec::new(),
        });
    }
}

/// Tables that are calibrated, not trained, are told by their name.
fn is_trained(name: &str) -> bool {
    !cipherlm_model::is_calibrated(name)
}

/// A tensor's values as f32.
pub(crate) fn to_host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.into_data().convert_dtype(DType::F32);
    data.as_slice::<f32>().map_or_else(|_| data.iter::<f32>().collect(), <[f32]>::to_vec)
}
