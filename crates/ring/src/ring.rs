//! The ring context: degree, prime pool, tables and buffers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::arena::{PADDING, Pool};
use crate::bounds::{MAX_PRIMES, log_degree};
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::kernel::{Kernel, NttTable};
use crate::limbs::Limbs;
use crate::modulus::Modulus;
use crate::par;

/// `Z_q[X] / (X^N + 1)` for a pool of primes `q`; polynomials choose their limbs from the pool.
///
/// Holds the NTT tables in use, the kernel for this CPU, the automorphisms and basis conversions in
/// use, and the free buffers.
pub struct Ring {
    id: u64,
    degree: usize,
    tables: Vec<NttTable>,
    kernel: &'static Kernel,
    pool: Arc<Pool>,
    derived: Cache,
}

impl Ring {
    /// A ring of the given degree (a power of two, 2^4 to 2^17) over distinct primes `q < 2^50`,
    /// `q = 1 mod 2 * degree`, on the kernel of [`Kernel::chosen`].
    pub fn new(degree: usize, primes: &[u64]) -> Result<Arc<Self>> {
        Self::with_kernel(degree, primes, Kernel::chosen()?)
    }

    /// As [`Ring::new`], on a chosen kernel; results do not depend on it.
    pub fn with_kernel(degree: usize, primes: &[u64], kernel: &'static Kernel) -> Result<Arc<Self>> {
        log_degree(degree)?;
        if primes.is_empty() {
            return Err(Error::EmptyBasis { role: "ring" });
        }
        if primes.len() > MAX_PRIMES {
            return Err(Error::LimbOutOfRange { index: primes.len(), count: MAX_PRIMES });
        }
        let mut sorted = primes.to_vec();
        sorted.sort_unstable();
        if let Some(w) = sorted.windows(2).find(|w| w[0] == w[1]) {
            return Err(Error::Duplicate { value: w[0] });
        }
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let tables = par::map(primes, |&q| NttTable::new(Modulus::new(q)?, degree))
            .into_iter()
            .collect::<Result<_>>()?;
        Ok(Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            degree,
            tables,
            kernel,
            pool: Pool::new(),
            derived: Cache::default(),
        }))
    }

    /// `N`.
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// `log2 N`.
    pub fn log_degree(&self) -> u32 {
        self.degree.trailing_zeros()
    }

    /// f64 between the starts of neighbouring limbs of one polynomial.
    pub fn stride(&self) -> usize {
        self.degree + PADDING
    }

    /// Number of primes in the pool.
    pub fn prime_count(&self) -> usize {
        self.tables.len()
    }

    /// The primes, by pool index.
    pub fn primes(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.tables.iter().map(|t| t.modulus().value())
    }

    /// The prime at a pool index.
    pub fn prime(&self, index: usize) -> Result<u64> {
        self.modulus(index).map(Modulus::value)
    }

    /// The modulus at a pool index.
    pub fn modulus(&self, index: usize) -> Result<&Modulus> {
        self.ntt_table(index).map(NttTable::modulus)
    }

    /// The NTT table at a pool index.
    pub fn ntt_table(&self, index: usize) -> Result<&NttTable> {
        self.tables.get(index).ok_or(Error::LimbOutOfRange { index, count: self.tables.len() })
    }

    /// The whole pool.
    pub fn limbs(&self) -> Limbs {
        Limbs::range(0..self.tables.len())
    }

    /// `log2` of the product of these primes.
    pub fn log2(&self, limbs: &Limbs) -> Result<f64> {
        limbs.iter().map(|i| self.modulus(i).map(Modulus::log2)).sum()
    }

    /// The slice kernels in use.
    pub fn kernel(&self) -> &'static Kernel {
        self.kernel
    }

    /// Which kernel was chosen: as [`Kernel::name`] says.
    pub fn kernel_name(&self) -> &'static str {
        self.kernel.name
    }

    /// Frees the buffers that wait for reuse: for who will not need any for long.
    pub fn free_buffers(&self) {
        self.pool.clear();
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Automorphisms and basis conversions made so far.
    pub(crate) fn derived(&self) -> &Cache {
        &self.derived
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The table of a limb that is known to exist.
    pub(crate) fn table(&self, index: usize) -> &NttTable {
        &self.tables[index]
    }

    /// The modulus of a limb that is known to exist.
    pub(crate) fn modulus_at(&self, index: usize) -> &Modulus {
        self.tables[index].modulus()
    }

    /// Refuses empty sets and limbs beyond the pool.
    pub(crate) fn check_limbs(&self, role: &'static str, limbs: &Limbs) -> Result<()> {
        match limbs.iter().next_back() {
            None => Err(Error::EmptyBasis { role }),
            Some(index) if index >= self.tables.len() => {
                Err(Error::LimbOutOfRange { index, count: self.tables.len() })
            }
            Some(_) => Ok(()),
        }
    }

    /// Refuses a ring whose elements cannot be combined with those of this one: another degree or
    /// pool.
    ///
    /// # Errors
    /// [`Error::RingMismatch`].
    pub fn check_same(&self, other: &Self) -> Result<()> {
        if self.id == other.id || (self.degree == other.degree && self.primes().eq(other.primes())) {
            return Ok(());
        }
        Err(Error::RingMismatch {
            left_degree: self.degree,
            left_primes: self.prime_count(),
            right_degree: other.degree,
            right_primes: other.prime_count(),
        })
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("degree", &self.degree)
            .field("primes", &self.primes().collect::<Vec<_>>())
            .field("kernel", &self.kernel.name)
            .finish()
    }
}
