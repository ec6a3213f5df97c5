//! What every step costs, before any level is known.

use std::collections::BTreeMap;

use cipherlm_circuits::slots::{Chain, Clear, Interleaved, Machine, OpKind, Plain, Primitives};

use crate::error::{At, Result};
use crate::exec;
use crate::fold::{Folded, Purpose};
use crate::graph::{Graph, Node, Op};
use crate::placement::Profile;
use crate::session::{Session, Turn};

/// Counts the primitive operations of every node on a dry machine.
pub(super) struct Probe<'a> {
    pub(super) folded: &'a Folded,
    pub(super) graph: &'a Graph,
}

impl Probe<'_> {
    pub(super) fn profiles(&self) -> Result<Vec<Profile>> {
        let mut known: BTreeMap<String, Profile> = BTreeMap::new();
        let mut out = vec![];
        for node in &self.graph.nodes {
            // Layers that differ in numbers alone do the same operations. A polynomial is its own,
            // and so is a matrix with zeros, which costs less.
            let shared = match &node.op {
                Op::Poly { .. } => false,
                Op::Linear { map, .. } => !self.folded.has_zeros(*map)?,
                _ => true,
            };
            let local = node.name.splitn(3, '.').last().unwrap_or(&node.name);
            let widths: Vec<usize> = node.inputs.iter().map(|slice| slice.len).collect();
            let key = format!("{local} {} {widths:?} {}", node.depth, node.width);
            let profile = match known.get(&key).filter(|_| shared) {
                Some(profile) => profile.clone(),
                None => self.profile(node)?,
            };
            if shared {
                known.insert(key, profile.clone());
            }
            out.push(profile);
        }
        Ok(out)
    }

    fn profile(&self, node: &Node) -> Result<Profile> {
        const LEVEL: usize = 2;
        if matches!(node.op, Op::Input) {
            return Ok(vec![]);
        }
        let chain = Chain::uniform(self.folded.geometry.slots, LEVEL + node.depth, 40, 50).at(&node.name)?;
        let machine = Clear::dry(chain);
        let blank = Plain::from(0.0);
        let make = |len: usize| {
            (0..len)
                .map(|_| machine.trivial(&blank, LEVEL + node.depth).at(&node.name))
                .collect::<Result<Vec<_>>>()
        };
        let inputs = node.inputs.iter().map(|slice| make(slice.len)).collect::<Result<Vec<_>>>()?;
        machine.log().clear();
        let views: Vec<_> = inputs.iter().map(Vec::as_slice).collect();
        let mut session = Session::<Clear>::empty(self.folded, usize::MAX);
        session.position = self.folded.shape().context - self.folded.first() - 1;
        let mut after = session.clone();
        let mut turn = Turn { before: &session, after: &mut after };
        let turn = (self.folded.purpose != Purpose::Prompt).then_some(&mut turn);
        let one = Interleaved::new(&machine, 1).at(&node.name)?;
        exec::evaluate(&one, self.folded, node, &views, LEVEL, &[self.folded.geometry.tokens], turn)?;
        let rows = machine.log().rows();
        let kinds = rows.iter().filter(|row| row.kind != OpKind::Refresh);
        Ok(kinds.map(|row| (row.kind, row.level as i64 - LEVEL as i64, row.total.count)).collect())
    }
}
