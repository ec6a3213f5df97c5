//! Where to refresh: the cheapest set of refreshed values, layer by layer.
//!
//! Between two layers only the residual stream is alive. So the search runs backwards over layers;
//! its state is the level that the rest of the circuit needs of the stream. In each layer every
//! small set of bounded values is tried; a set decides all levels of the layer (each step runs at
//! the lowest level that its readers allow), hence its cost.

use std::collections::BTreeMap;

use cipherlm_circuits::slots::{OpKind, RefreshProfile};

use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId};
use crate::prices::Prices;
use crate::target::RefreshChoice;

/// A decision for every node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Placement {
    /// Level on which each node lands.
    pub(crate) levels: Vec<usize>,
    /// Level to which its value is refreshed afterwards.
    pub(crate) refreshes: BTreeMap<NodeId, usize>,
    /// Predicted seconds.
    pub(crate) seconds: f64,
}

/// Primitive operations of a node, with levels relative to the one it lands on.
pub(crate) type Profile = Vec<(OpKind, i64, u64)>;

/// Seconds of each node on every level of a chain with `levels` of them.
pub(crate) fn seconds_by_level(profiles: &[Profile], prices: &Prices, levels: usize) -> Vec<Vec<f64>> {
    let node = |profile: &Profile| {
        let transform = profile.iter().any(|row| row.0 == OpKind::MulPlainExtended);
        let share = if transform { prices.linear } else { 1.0 };
        let paid = profile.iter().map(|&(kind, at, _)| (kind, at, share * fused(profile, kind, at)));
        let paid: Vec<_> = paid.collect();
        let at = |level: usize| {
            let price = |&(kind, offset, count): &(OpKind, i64, f64)| {
                count * prices.seconds(kind, usize::try_from(level as i64 + offset).unwrap_or(0))
            };
            // An empty sum of floats is -0.
            paid.iter().map(price).sum::<f64>() + 0.0
        };
        (0..levels).map(at).collect()
    };
    profiles.iter().map(node).collect()
}

pub(crate) struct Search<'a> {
    pub(crate) graph: &'a Graph,
    /// Seconds of each node by the level it lands on: [`seconds_by_level`].
    pub(crate) nodes: &'a [Vec<f64>],
    pub(crate) prices: &'a Prices,
    pub(crate) refresh: RefreshProfile,
    pub(crate) choice: RefreshChoice,
    /// Highest level of a fresh encryption.
    pub(crate) top: usize,
    /// Lowest level of any result.
    pub(crate) floor: usize,
    /// Lowest level of the output.
    pub(crate) exit: usize,
    /// Most refreshes in one layer.
    pub(crate) limit: usize,
}

impl Search<'_> {
    /// The cheapest placement.
    ///
    /// # Errors
    /// [`Error::NoPlacement`] naming the layer that has none.
    pub(crate) fn cheapest(&self) -> Result<Placement> {
        let consumers = self.graph.consumers();
        let segments = self.segments();
        let top = self.top.max(self.refresh.output_level);
        // best[need of the stream] for the rest of the circuit, with the choices that lead there.
        let mut best: BTreeMap<usize, (f64, Vec<Trial>)> = BTreeMap::from([(self.exit, (0.0, vec![]))]);
        for (index, &(from, to)) in segments.iter().enumerate().rev() {
            let candidates: Vec<NodeId> = (from..to).filter(|&n| self.graph.nodes[n].bounded).collect();
            let mut next: BTreeMap<usize, (f64, Vec<Trial>)> = BTreeMap::new();
            let mut deepest = (usize::MAX, from);
            for set in subsets(&candidates, self.limit) {
                for (&exit, (rest, chain)) in &best {
                    match self.try_set(from, to, exit, &set, &consumers) {
                        Err((need, node)) if need < deepest.0 => deepest = (need, node),
                        Err(_) => {}
                        Ok(trial) if trial.entry <= top => {
                            let total = rest + trial.seconds;
                            let slot = next.entry(trial.entry).or_insert((f64::INFINITY, vec![]));
                            if total < slot.0 {
                                let mut chain = chain.clone();
                                chain.push(trial);
                                *slot = (total, chain);
                            }
                        }
                        Ok(trial) if trial.entry < deepest.0 => deepest = (trial.entry, from),
                        Ok(_) => {}
                    }
                }
            }
            // The stream enters a layer from a refresh or a fresh encryption, or unrefreshed from
            // the layer before.
            let limit = if index == 0 { self.top } else { top };
            let least = next.keys().next().copied();
            next.retain(|&need, _| need <= limit);
            prune(&mut next);
            if next.is_empty() {
                // What enters the first layer comes from a fresh encryption, which may be lower.
                let (need, node, top) = match least {
                    Some(need) => (need, 0, limit),
                    None => (deepest.0, deepest.1, top),
                };
                let node = self.graph.nodes[node].name.clone();
                return Err(Error::NoPlacement { node, top, need });
            }
            best = next;
        }
        let cheapest = best.into_iter().min_by(|a, b| a.1.0.total_cmp(&b.1.0));
        let Some((entry, (seconds, chain))) = cheapest else {
            return Err(Error::NoPlacement { node: "input".into(), top, need: 0 });
        };
        let mut placement =
            Placement { levels: vec![0; self.graph.nodes.len()], refreshes: BTreeMap::new(), seconds };
        placement.levels[0] = entry;
        for trial in chain {
            for (offset, &level) in trial.levels.iter().enumerate() {
                placement.levels[trial.from + offset] = level;
            }
            placement.refreshes.extend(trial.refreshes);
        }
        Ok(placement)
    }

    /// Seconds of a placement, which may have been found by other prices.
    pub(crate) fn seconds_of(&self, placement: &Placement) -> f64 {
        let nodes = placement.levels.iter().enumerate().map(|(id, &level)| self.node_seconds(id, level));
        let refreshes = placement.refreshes.iter();
        let refreshes = refreshes.map(|(&id, &to)| self.refresh_seconds(self.graph.nodes[id].width, to));
        nodes.sum::<f64>() + refreshes.sum::<f64>()
    }

    /// The baseline: whenever a step would run out of levels, refresh the stream just before it, as
    /// high as it goes.
    pub(crate) fn greedy_seconds(&self) -> Option<f64> {
        // Refresh as late as possible: the candidate nearest the point of exhaustion, in each
        // layer.
        let consumers = self.graph.consumers();
        let mut total = 0.0;
        let mut exit = self.exit;
        for &(from, to) in self.segments().iter().rev() {
            let candidates: Vec<NodeId> = (from..to).filter(|&n| self.graph.nodes[n].bounded).collect();
            let trial = subsets(&candidates, self.limit)
                .into_iter()
                .filter_map(|set| self.try_set(from, to, exit, &set, &consumers).ok())
                .filter(|t| t.entry <= self.top)
                .min_by_key(|t| (t.refreshes.len(), t.refreshes.first().map(|r| usize::MAX - r.0)))?;
            total += trial.seconds;
            exit = trial.entry;
        }
        Some(total)
    }

    /// Seconds of one node that lands on a level; above the chain in proportion.
    pub(crate) fn node_seconds(&self, node: NodeId, level: usize) -> f64 {
        let by_level = &self.nodes[node];
        match (by_level.get(level), by_level.last()) {
            (Some(&seconds), _) => seconds,
            (None, Some(&last)) => last * (level + 1) as f64 / by_level.len() as f64,
            (None, None) => 0.0,
        }
    }

    /// Seconds to refresh a value of that many vectors to a level.
    pub(crate) fn refresh_seconds(&self, width: usize, level: usize) -> f64 {
        let (pairs, singles) = self.choice.counts(width);
        let pair = self.choice.pair.map_or(0.0, |kind| self.prices.refresh(kind, level));
        pairs as f64 * pair + singles as f64 * self.prices.refresh(self.choice.single, level)
    }

    /// Ranges of nodes between two states of the residual stream; the input node stands before the
    /// first.
    fn segments(&self) -> Vec<(NodeId, NodeId)> {
        let ends = self.graph.ends.iter().copied().chain([self.graph.nodes.len()]);
        let mut from = 1;
        ends.map(|to| (std::mem::replace(&mut from, to), to)).collect()
    }

    fn try_set(
        &self,
        from: NodeId,
        to: NodeId,
        exit: usize,
        set: &[NodeId],
        consumers: &[Vec<NodeId>],
    ) -> std::result::Result<Trial, (usize, NodeId)> {
        let nodes = &self.graph.nodes;
        let mut trial = Trial { from, levels: vec![0; to - from], refreshes: vec![], entry: 0, seconds: 0.0 };
        let needs = |trial: &Trial, node: NodeId| {
            let readers = consumers[node].iter().filter(|&&c| c >= from && c < to);
            readers.map(|&c| trial.levels[c - from] + nodes[c].depth).max()
        };
        for id in (from..to).rev() {
            let need = needs(&trial, id).unwrap_or(self.floor).max(if id == to - 1 { exit } else { 0 });
            let mut level = need;
            if set.contains(&id) {
                if need > self.refresh.output_level {
                    return Err((need, id));
                }
                // Sparse refreshes could take less than circuits may use.
                level = self.refresh.input_level.max(self.floor);
                trial.refreshes.push((id, need));
                trial.seconds += self.refresh_seconds(nodes[id].width, need);
            }
            trial.levels[id - from] = level;
            trial.seconds += self.node_seconds(id, level);
        }
        trial.entry = needs(&trial, from - 1).unwrap_or(exit);
        Ok(trial)
    }
}

#[derive(Debug, Clone)]
struct Trial {
    from: NodeId,
    levels: Vec<usize>,
    refreshes: Vec<(NodeId, usize)>,
    entry: usize,
    seconds: f64,
}

/// How many operations of a kind and level a step pays for. A linear transform divides its results
/// by the special primes and by that of the level at once, and only one half of a sum before each
/// giant step.
fn fused(profile: &Profile, kind: OpKind, offset: i64) -> f64 {
    let count = |wanted: OpKind| -> f64 {
        let rows = profile.iter().filter(|&&(kind, at, _)| kind == wanted && at == offset);
        rows.map(|&(_, _, count)| count as f64).sum()
    };
    if count(OpKind::MulPlainExtended) == 0.0 {
        return count(kind);
    }
    let (divisions, rescales) = (count(OpKind::ModDown), count(OpKind::Rescale));
    match kind {
        OpKind::Rescale => (rescales - divisions).max(0.0),
        OpKind::ModDown => (divisions + rescales.min(divisions)) / 2.0,
        _ => count(kind),
    }
}

/// Drops entries that need a higher level and more time than another.
fn prune(best: &mut BTreeMap<usize, (f64, Vec<Trial>)>) {
    let mut cheapest = f64::INFINITY;
    best.retain(|_, (seconds, _)| {
        let keep = *seconds < cheapest;
        cheapest = cheapest.min(*seconds);
        keep
    });
}

/// All subsets of at most `limit` elements.
fn subsets(items: &[NodeId], limit: usize) -> Vec<Vec<NodeId>> {
    let mut out = vec![vec![]];
    for &item in items {
        let grown: Vec<Vec<NodeId>> =
            out.iter().filter(|s| s.len() < limit).map(|s| [s.as_slice(), &[item]].concat()).collect();
        out.extend(grown);
    }
    out
}
