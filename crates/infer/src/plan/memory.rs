//! What a run takes of memory, known before it starts.

use super::Plan;
use crate::graph::{Node, NodeId, Op};

/// What a run takes of memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    /// Keys, as the caller holds them.
    pub keys: u64,
    /// The model and its widest map on the way to plaintexts.
    pub weights: u64,
    /// Ciphertexts alive at once, beyond those of a small model.
    pub vectors: u64,
    /// Rotations that packed attention holds.
    pub attention: u64,
    /// Plaintexts and digits of transforms and bootstraps, and the ciphertexts of a small model.
    pub circuits: u64,
}

impl Memory {
    /// Everything but the keys.
    pub fn working(&self) -> u64 {
        self.weights + self.vectors + self.attention + self.circuits
    }

    /// Everything.
    pub fn total(&self) -> u64 {
        self.keys + self.working()
    }
}

impl Plan {
    /// Memory of a run beside the keys: [`Memory::working`] of [`Plan::memory`].
    pub fn working_bytes(&self) -> u64 {
        self.memory(0).working()
    }

    /// The memory bill of a run that holds `keys` bytes of keys. Plaintexts, digits and bootstraps
    /// are as measured at N = 2^16 with full bootstraps; everything that grows with the model is
    /// counted on top.
    pub fn memory(&self, keys: u64) -> Memory {
        let g = self.folded.geometry;
        let limb = 2 * g.vector_slots() as u64 * 8;
        let vectors = self.live_bytes(limb);
        // Of runs of 32 limbs at 16 to 128 tokens: 2.9 to 3.0 GiB beyond keys and attention.
        let per_slot = |bytes: u64| bytes * g.vector_slots() as u64 / (1 << 15);
        let measured = per_slot((295 << 30) / 100) * self.target.most_limbs() / 32;
        // The measured run had some of its memory in vectors.
        let vectors = vectors.saturating_sub(per_slot(1 << 29));
        Memory {
            keys,
            weights: self.weight_bytes(),
            vectors,
            attention: self.attention_bytes(limb),
            circuits: measured,
        }
    }

    /// Ciphertexts that are alive at once, with those of the step that is run.
    fn live_bytes(&self, limb: u64) -> u64 {
        let nodes = &self.graph.nodes;
        let bytes = |width: usize, level: usize| 2 * width as u64 * (level as u64 + 1) * limb;
        let consumers = self.graph.consumers();
        let last = |id: NodeId| consumers[id].last().copied().unwrap_or(usize::MAX);
        let at = |step: NodeId| -> u64 {
            let kept = (0..step)
                .filter(|&id| last(id) >= step)
                .map(|id| bytes(nodes[id].width, self.level_after(id)));
            let own = bytes(nodes[step].width, self.placement.levels[step] + nodes[step].depth);
            kept.sum::<u64>() + own
        };
        (0..nodes.len()).map(at).max().unwrap_or(0)
    }

    /// The model, and the widest of its maps in the forms that it goes through on the way to
    /// plaintexts.
    fn weight_bytes(&self) -> u64 {
        let shape = self.folded.shape();
        let widest = [3 * shape.attention_width(), 2 * shape.ffn, self.folded.results()]
            .into_iter()
            .max()
            .unwrap_or(0);
        8 * (shape.parameters() as u64 + 4 * (shape.d_model * widest) as u64)
    }

    /// What packed attention holds.
    fn attention_bytes(&self, limb: u64) -> u64 {
        let held = |(id, node): (NodeId, &Node)| match node.op {
            Op::Attend { .. } if self.folded.packs_scores() => {
                let limbs = (self.placement.levels[id] + node.depth + 1) as u64;
                2 * (self.folded.meeting() + self.folded.distances() - 1) as u64 * limbs * limb
            }
            _ => 0,
        };
        self.graph.nodes.iter().enumerate().map(held).max().unwrap_or(0)
    }
}
