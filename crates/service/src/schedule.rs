//! Which key a worker turns to: keys take longer to load than many a job to run.

/// Patience in jobs: what loading keys costs is then a small part of what is done with them.
pub(crate) const JOBS_OF_PATIENCE: f64 = 4.0;

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
    /// Keys in the memory of other workers.
    pub(crate) elsewhere: &'a [K],
    /// Seconds that a key may wait for the worker that has it, and that a worker stays with a key
    /// while others wait.
    pub(crate) patience: f64,
}

impl<K: PartialEq> View<'_, K> {
    /// Places in `waiting` in the order in which the worker should try them; those that it should
    /// leave to others are missing.
    ///
    /// A key in memory goes first. One that nobody has is taken by who is free. One that another
    /// worker has is left to it until its patience is over; so is one that waits while this worker
    /// has work with the key it holds.
    pub(crate) fn order(&self, waiting: &[Waiting<K>]) -> Vec<usize> {
        let class = |one: &Waiting<K>| {
            let overdue = one.oldest > self.patience;
            if self.resident.contains(&one.key) {
                // At its turn like the others when the worker has stayed long enough.
                Some(if overdue && self.stayed > self.patience { 0 } else { 1 })
            } else if overdue {
                Some(if self.stayed > self.patience { 0 } else { 2 })
            } else {
                (!self.elsewhere.contains(&one.key)).then_some(2)
            }
        };
        let mut order: Vec<(u8, usize)> =
            waiting.iter().enumerate().filter_map(|(at, one)| Some((class(one)?, at))).collect();
        order.sort_by(|(a, i), (b, j)| a.cmp(b).then(waiting[*j].oldest.total_cmp(&waiting[*i].oldest)));
        order.into_iter().map(|(_, at)| at).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(resident: &[u8], stayed: f64, elsewhere: &[u8], waiting: &[(u8, f64)]) -> Vec<u8> {
        let waiting: Vec<_> = waiting.iter().map(|&(key, oldest)| Waiting { key, oldest }).collect();
        let view = View { resident, stayed, elsewhere, patience: 60.0 };
        view.order(&waiting).into_iter().map(|at| waiting[at].key).collect()
    }

    #[test]
    fn a_worker_stays_with_its_key_but_not_for_ever() {
        assert_eq!(order(&[1], 5.0, &[], &[(2, 50.0), (1, 1.0)]), [1, 2], "its own key first");
        assert_eq!(order(&[1], 5.0, &[], &[(2, 99.0), (1, 1.0)]), [1, 2], "it has just loaded it");
        assert_eq!(order(&[1], 70.0, &[], &[(2, 99.0), (1, 1.0)]), [2, 1], "others had to wait");
        assert_eq!(order(&[1], 70.0, &[], &[(2, 99.0), (1, 120.0)]), [1, 2], "the oldest of the overdue");
    }

    #[test]
    fn a_key_in_another_memory_is_left_there_while_it_moves() {
        assert_eq!(order(&[1], 0.0, &[2], &[(2, 10.0)]), [0u8; 0], "its worker comes to it");
        assert_eq!(order(&[1], 0.0, &[2], &[(2, 61.0)]), [2], "it does not");
        assert_eq!(order(&[], 0.0, &[], &[(3, 1.0), (2, 2.0)]), [2, 3], "nobody has them");
    }
}
