//! A plan as a person reads it.

use std::fmt::Write as _;

use super::Plan;
use crate::graph::{Node, NodeId, Operator};

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Step {
    /// Name of the step.
    pub name: String,
    /// Kind of work.
    pub class: Operator,
    /// Layer, if it belongs to one.
    pub layer: Option<usize>,
    /// Level that the inputs need.
    pub level_in: usize,
    /// Level of the result.
    pub level_out: usize,
    /// Vectors of the result.
    pub vectors: usize,
    /// Level after the refresh of the result, if it is refreshed.
    pub refreshed_to: Option<usize>,
    /// Why it is refreshed: who needs more levels than it lands with.
    pub reason: Option<String>,
    /// Predicted seconds without the refresh.
    pub seconds: f64,
    /// Predicted seconds of the refresh.
    pub refresh_seconds: f64,
}

impl Plan {
    /// Name, level in, level out, and refresh target of every step.
    pub fn schedule(&self) -> Vec<Step> {
        let step = |(id, node): (NodeId, &Node)| Step {
            name: node.name.clone(),
            class: node.class,
            layer: node.layer,
            level_in: self.placement.levels[id] + node.depth,
            level_out: self.placement.levels[id],
            vectors: node.width,
            refreshed_to: self.placement.refreshes.get(&id).copied(),
            reason: self.reason(id),
            seconds: self.search().node_seconds(id, self.placement.levels[id]),
            refresh_seconds: self
                .placement
                .refreshes
                .get(&id)
                .map_or(0.0, |&to| self.search().refresh_seconds(node.width, to)),
        };
        self.graph.nodes.iter().enumerate().map(step).collect()
    }

    /// The reader of a refreshed value that starts highest.
    fn reason(&self, id: NodeId) -> Option<String> {
        let to = self.placement.refreshes.get(&id)?;
        let start = |&reader: &NodeId| self.placement.levels[reader] + self.graph.nodes[reader].depth;
        let readers = self.graph.consumers();
        let highest = readers[id].iter().max_by_key(|reader| start(reader))?;
        let (reader, depth) = (&self.graph.nodes[*highest].name, self.graph.nodes[*highest].depth);
        let landed = self.placement.levels[id];
        Some(format!(
            "{reader} takes {depth} levels and those after it the rest of {to}; it lands with {landed}"
        ))
    }

    /// A readable account of the plan.
    pub fn explain(&self) -> String {
        let g = self.folded.geometry;
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{}: {}{} tokens x {} features x {} copies in {} slots, {} block(s), {}",
            self.folded.model.spec().name,
            if g.prompts > 1 { format!("{} prompts at once, each ", g.prompts) } else { String::new() },
            g.tokens,
            g.features,
            g.copies,
            g.slots,
            g.blocks,
            if self.folded.packs_scores() {
                format!("packed scores, {} distances a vector", g.head)
            } else {
                format!("{} score vectors per block", g.shifts())
            }
        );
        let (operations, vectors) = self.refreshes();
        let _ = writeln!(
            out,
            "refreshes: {operations} for {vectors} vectors ({:?} by layer); single {}, pair {}",
            self.refreshes_by_layer(),
            crate::cost::kind_name(self.choice.single),
            self.choice.pair.map_or("-".into(), crate::cost::kind_name),
        );
        let _ = writeln!(
            out,
            "predicted {:.1} s (refreshes as late as possible: {}), {} keys",
            self.seconds(),
            self.greedy.map_or("infeasible".into(), |s| format!("{s:.1} s")),
            self.keys.len()
        );
        let _ = writeln!(
            out,
            "{:<34} {:>7} {:>7} {:>8} {:>9}",
            "step", "levels", "vectors", "seconds", "refresh"
        );
        for step in self.schedule() {
            let refresh = step
                .refreshed_to
                .map_or(String::new(), |to| format!("-> {to} ({:.2} s)", step.refresh_seconds));
            let refresh = step.reason.iter().fold(refresh, |refresh, reason| format!("{refresh}: {reason}"));
            let levels = format!("{}->{}", step.level_in, step.level_out);
            let _ = writeln!(
                out,
                "{:<34} {:>7} {:>7} {:>8.3} {}",
                step.name, levels, step.vectors, step.seconds, refresh
            );
        }
        out
    }
}
