//! The instances of the workload, their parameters and keys.

use cipherlm_circuits::slots::{Chain, Clear, ClearVector, Machine, Plain, Primitives};
use cipherlm_ckks::{KeyRequest, Params};
use peer_fhe_benchmarking::{Error, Result, Task};
use serde_json::{Value, json};

use crate::circuit::{self, Database, INDICATOR_LEVEL};
use crate::layout::{Layout, Table};
use crate::threshold::{DEPTH, GAP, THRESHOLD, Threshold};

/// Dimension and number of records of toy, small, medium and large.
const SIZES: [(usize, usize); 4] = [(128, 1_000), (128, 50_000), (256, 1_000_000), (512, 20_000_000)];
const DEGREE: usize = 1 << 15;
/// Bits of the base modulus, of a level, and of a special prime, and number of those: two digits a
/// key at the top.
const BITS: (f64, f64, u32, usize) = (50.0, 44.0, 46, 6);

/// What both sides derive from the size alone.
pub struct Instance {
    /// The scheme's parameters.
    pub params: Params,
    /// The places of everything.
    pub layout: Layout,
}

impl Instance {
    /// The instance of a task.
    ///
    /// # Errors
    /// Those of parameters and layout.
    pub fn new(task: &Task) -> Result<Self> {
        let shape = Error::Shape { what: "size", have: task.size, need: "0 to 3".into() };
        let (dim, records) = *SIZES.get(task.size).ok_or(shape)?;
        let levels = 1 + DEPTH + INDICATOR_LEVEL;
        let (base, level, special, count) = BITS;
        let params = Params::builder()
            .degree(DEGREE)
            .base(base)
            .levels(level, levels)
            .special(special, count)
            .build()?;
        let layout = Layout::new(params.slots(), dim, records)?;
        Ok(Self { params, layout })
    }

    /// The keys of the server's circuit, found by running it without any slots.
    ///
    /// # Errors
    /// Those of the circuit.
    pub fn keys(&self, threshold: &Threshold, count_only: bool) -> Result<KeyRequest> {
        let machine = Clear::dry(Chain::of(&self.params)?);
        let (layout, top) = (&self.layout, self.params.max_level());
        let zero = |level| Ok::<_, Error>(machine.input(Plain::from(0.0), level)?);
        let uploads = if layout.expands() { 1 } else { layout.groups };
        let query = (0..uploads).map(|_| zero(top)).collect::<Result<_>>()?;
        let query = circuit::expand(&machine, layout, query)?;
        let empty = Empty { groups: layout.groups, record: zero(top)?, payload: zero(INDICATOR_LEVEL)? };
        let scores = circuit::scores(&machine, layout, &query, &empty)?;
        let indicators = circuit::indicators(&machine, threshold, &scores)?;
        if count_only {
            circuit::count(&machine, &indicators)?;
        } else {
            circuit::retrieve(&machine, layout, &indicators, &empty)?;
        }
        Ok(circuit::key_request(machine.log(), &self.params))
    }

    /// What a report says of the parameters and of what can go wrong.
    pub fn facts(&self) -> Value {
        let (params, layout) = (&self.params, &self.layout);
        json!({
            "degree": params.degree(),
            "log_qp": params.log_qp(),
            "security_bits": params.security().bits,
            "secret": "dense ternary",
            "levels": params.max_level(),
            "level_bits": BITS.1,
            "kernel": params.ring().kernel().name,
            "threads": rayon::current_num_threads(),
            "threshold": THRESHOLD,
            "gap": GAP,
            "records": layout.records,
            "dimension": layout.dim,
            "in_the_clear": "number and dimension of the records, the threshold, the time of a query",
        })
    }
}

/// A database of zeros.
struct Empty {
    groups: usize,
    record: ClearVector,
    payload: ClearVector,
}

impl Database<ClearVector> for Empty {
    fn records(&self, _: usize, _: usize) -> Result<Vec<ClearVector>> {
        Ok(vec![self.record.clone(); self.groups])
    }

    fn payload(&self, _: Table, _: usize, _: usize) -> Result<ClearVector> {
        Ok(self.payload.clone())
    }
}
