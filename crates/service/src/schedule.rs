//! Which key a worker turns to: keys take longer to load than many a job to run.

use std::cmp::Ordering;
use std::collections::BTreeSet;

/// Patience in jobs: what loading keys costs is then a small part of what is done with them.
pub(crate) const JOBS_OF_PATIENCE: f64 = 4.0;
/// How long a worker waits for the next job of its key before it turns to another, in jobs: a
/// client that goes on needs a moment for that, and loading its keys again would take far longer.
pub(crate) const JOBS_OF_LINGER: f64 = 0.1;

/// Jobs of one key that wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting<K> {
    pub(crate) key: K,
    /// Seconds that the oldest of them has waited.
    pub(crate) oldest: f64,
}

/// What a worker knows when it chooses.
pub(crate) struct View<'a, K> {
    /// Keys in its memory.
    pub(crate) resident: &'a [K],
    /// Seconds since it last loaded one.
    pub(crate) stayed: f64,
    /// Seconds since its last job ended.
    pub(crate) idle: f64,
    /// Keys in the memory of other workers.
    pub(crate) elsewhere: &'a BTreeSet<K>,
    /// Seconds of a job.
    pub(crate) job: f64,
}

impl<K: Ord> View<'_, K> {
    /// Seconds that the worker still waits for the next job of the key it has, whatever else
    /// there is.
    pub(crate) fn lingers(&self) -> f64 {
        let stays = self.stayed <= JOBS_OF_PATIENCE * self.job && !self.resident.is_empty();
        if stays { (JOBS_OF_LINGER * self.job - self.idle).max(0.0) } else { 0.0 }
    }

    /// When the worker should try a key; never, if it should leave it to others, or to later.
    fn class(&self, one: &Waiting<K>) -> Option<u8> {
        let patience = JOBS_OF_PATIENCE * self.job;
        let (overdue, stayed) = (one.oldest > patience, self.stayed > patience);
        match (self.resident.contains(&one.key), overdue) {
            // At their turn, all keys alike, when the worker has stayed long enough.
            (_, true) if stayed => Some(0),
            (true, _) => Some(1),
            _ if self.lingers() > 0.0 => None,
            (false, true) => Some(2),
            (false, false) => (!self.elsewhere.contains(&one.key)).then_some(2),
        }
    }

    /// Sooner is less.
    fn compare(a: (u8, &Waiting<K>), b: (u8, &Waiting<K>)) -> Ordering {
        a.0.cmp(&b.0).then(b.1.oldest.total_cmp(&a.1.oldest))
    }

    /// The place in `waiting` that the worker should try first.
    pub(crate) fn first(&self, waiting: &[Waiting<K>]) -> Option<usize> {
        let all = waiting.iter().enumerate().filter_map(|(at, one)| Some((self.class(one)?, at)));
        let best = all.min_by(|(a, i), (b, j)| Self::compare((*a, &waiting[*i]), (*b, &waiting[*j])));
        best.map(|(_, at)| at)
    }

    /// Places in `waiting` in the order in which the worker should try them; those that it should
    /// leave to others are missing.
    ///
    /// A key in memory goes first. One that nobody has is taken by who is free. One that another
    /// worker has is left to it until its patience is over; so is one that waits while this worker
    /// has work with the key it holds.
    #[cfg(feature = "nats")]
    pub(crate) fn order(&self, waiting: &[Waiting<K>]) -> Vec<usize> {
        let mut order: Vec<(u8, usize)> =
            waiting.iter().enumerate().filter_map(|(at, one)| Some((self.class(one)?, at))).collect();
        order.sort_by(|(a, i), (b, j)| Self::compare((*a, &waiting[*i]), (*b, &waiting[*j])));
        order.into_iter().map(|(_, at)| at).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys in the order in which they are served, each once.
    fn order(resident: &[u8], stayed: f64, elsewhere: &[u8], waiting: &[(u8, f64)]) -> Vec<u8> {
        let mut waiting: Vec<_> = waiting.iter().map(|&(key, oldest)| Waiting { key, oldest }).collect();
        let elsewhere = elsewhere.iter().copied().collect();
        let view = View { resident, stayed, idle: 2.0, elsewhere: &elsewhere, job: 15.0 };
        #[cfg(feature = "nats")]
        let all = view.order(&waiting).into_iter().map(|at| waiting[at].key).collect::<Vec<_>>();
        let mut served = vec![];
        while let Some(at) = view.first(&waiting) {
            served.push(waiting.remove(at).key);
        }
        #[cfg(feature = "nats")]
        assert_eq!(served, all);
        served
    }

    #[test]
    fn a_worker_stays_with_its_key_but_not_for_ever() {
        assert_eq!(order(&[1], 5.0, &[], &[(2, 50.0), (1, 1.0)]), [1, 2], "its own key first");
        assert_eq!(order(&[1], 5.0, &[], &[(2, 99.0), (1, 1.0)]), [1, 2], "it has just loaded it");
        assert_eq!(order(&[1], 70.0, &[], &[(2, 99.0), (1, 1.0)]), [2, 1], "others had to wait");
        assert_eq!(order(&[1], 70.0, &[], &[(2, 99.0), (1, 120.0)]), [1, 2], "the oldest of the overdue");
    }

    #[test]
    fn a_worker_waits_a_moment_for_its_client_to_go_on() {
        let elsewhere = BTreeSet::new();
        let view = |idle, stayed| View { resident: &[1], stayed, idle, elsewhere: &elsewhere, job: 20.0 };
        let other = [Waiting { key: 2, oldest: 500.0 }];
        assert_eq!((view(0.5, 5.0).first(&other), view(0.5, 5.0).lingers()), (None, 1.5));
        assert_eq!(view(2.1, 5.0).first(&other), Some(0), "it does not come");
        assert_eq!(view(0.5, 81.0).first(&other), Some(0), "others had to wait for long");
    }

    #[test]
    fn a_key_in_another_memory_is_left_there_while_it_moves() {
        assert_eq!(order(&[1], 0.0, &[2], &[(2, 10.0)]), [0u8; 0], "its worker comes to it");
        assert_eq!(order(&[1], 0.0, &[2], &[(2, 61.0)]), [2], "it does not");
        assert_eq!(order(&[], 0.0, &[], &[(3, 1.0), (2, 2.0)]), [2, 3], "nobody has them");
    }
}
