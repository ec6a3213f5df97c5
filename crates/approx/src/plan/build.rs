//! Splitting polynomials into baby and giant steps.

use crate::Polynomial;

/// T_n = 2·T_a·T_b − T_{a−b}, with a + b = n and a >= b.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PowerStep {
    /// Index made by this step.
    pub n: usize,
    /// Larger factor.
    pub a: usize,
    /// Smaller factor.
    pub b: usize,
}

/// One sum of the tree: Σ node·T_m + Σ c·T_j + constant.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) products: Vec<(usize, usize)>,
    pub(super) linear: Vec<(usize, f64)>,
    pub(super) constant: f64,
}

/// Where the value of one polynomial comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Root {
    pub(super) node: usize,
    pub(super) depth: u32,
}

/// The powers and the sums of a plan.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tree {
    pub(super) powers: Vec<PowerStep>,
    pub(super) nodes: Vec<Node>,
    pub(super) roots: Vec<Root>,
    pub(super) depth: u32,
    pub(super) baby_steps: usize,
}

struct Builder {
    baby_steps: usize,
    nodes: Vec<Node>,
    powers: Vec<PowerStep>,
}

impl Tree {
    /// The tree of Chebyshev polynomials on one interval with the given power of two as number of
    /// baby steps.
    pub(super) fn build(polynomials: &[Polynomial], baby_steps: usize) -> Self {
        let mut builder = Builder { baby_steps, nodes: Vec::new(), powers: Vec::new() };
        let roots: Vec<Root> = polynomials
            .iter()
            .map(|p| {
                let depth = ceil_log2(p.degree() + 1).max(1);
                Root { node: builder.split(p.coeffs().to_vec(), depth), depth }
            })
            .collect();
        let depth = roots.iter().map(|r| r.depth).max().unwrap_or(1);
        let Builder { nodes, powers, .. } = builder;
        Self { powers, nodes, roots, depth, baby_steps }
    }
}

impl Builder {
    /// The node of Σ c_k T_k, landing at most `depth` levels below the argument; needs `depth` >=
    /// ⌈log2(degree + 1)⌉.
    fn split(&mut self, mut c: Vec<f64>, depth: u32) -> usize {
        let mut products = Vec::new();
        let mut linear = Vec::new();
        loop {
            trim(&mut c);
            let degree = c.len() - 1;
            // Every term of a sum loses one level to its constant, so T_j fits if it lies at least
            // one level higher.
            let fits = (1..=degree).all(|j| c[j] == 0.0 || ceil_log2(j) < depth);
            if degree < self.baby_steps && fits {
                break;
            }
            let m = 1 << degree.ilog2();
            let q = divide(&mut c, m);
            if q.len() == 1 {
                linear.push((m, q[0]));
            } else {
                products.push((self.split(q, depth - 1), m));
            }
            self.power(m);
        }
        for (j, &value) in c.iter().enumerate().skip(1).filter(|(_, c)| **c != 0.0) {
            self.power(j);
            linear.push((j, value));
        }
        self.nodes.push(Node { products, linear, constant: c[0] });
        self.nodes.len() - 1
    }

    /// Makes sure T_n is computed, at depth ⌈log2 n⌉.
    fn power(&mut self, n: usize) {
        if n == 1 || self.powers.iter().any(|p| p.n == n) {
            return;
        }
        let a = 1 << (ceil_log2(n) - 1);
        let b = n - a;
        for index in [a, b, a - b] {
            if index > 0 {
                self.power(index);
            }
        }
        self.powers.push(PowerStep { n, a, b });
    }
}

/// Divides Σ c_k T_k (degree < 2m) by T_m: leaves the remainder in c and returns the quotient.
fn divide(c: &mut Vec<f64>, m: usize) -> Vec<f64> {
    // T_{m+j} = 2·T_m·T_j − T_{m−j}.
    let high = c.split_off(m);
    for (j, value) in high.iter().enumerate().skip(1) {
        c[m - j] -= value;
    }
    let mut q: Vec<f64> = high.iter().map(|v| 2.0 * v).collect();
    q[0] = high[0];
    trim(&mut q);
    q
}

fn trim(c: &mut Vec<f64>) {
    while c.len() > 1 && c.last() == Some(&0.0) {
        c.pop();
    }
}

/// ⌈log2 n⌉ for n >= 1.
pub(super) fn ceil_log2(n: usize) -> u32 {
    n.next_power_of_two().ilog2()
}

#[cfg(test)]
mod tests {
    use crate::{EvalPlan, F64, Interval, Parity, Polynomial};

    fn dense(degree: usize) -> Polynomial {
        let coeffs = (0..=degree).map(|k| 1.0 / (1.0 + k as f64) - 0.3).collect();
        Polynomial::chebyshev(Interval::UNIT, coeffs).unwrap()
    }

    #[test]
    fn depth_is_optimal_for_every_degree() {
        for degree in 1..=256usize {
            let plan = EvalPlan::new(&dense(degree)).unwrap();
            let optimal = (degree + 1).next_power_of_two().ilog2();
            assert_eq!(plan.depth(), optimal, "degree {degree}");
            assert_eq!(plan.cost().depth, optimal, "degree {degree}");
        }
    }

    #[test]
    fn values_match_clenshaw() {
        for degree in [0, 1, 2, 3, 7, 8, 30, 31, 63, 100, 191] {
            let p = dense(degree);
            let plan = EvalPlan::new(&p).unwrap();
            for x in Interval::UNIT.linspace(41) {
                let Ok(value) = plan.eval(&mut F64, &x, None);
                assert!((value - p.eval(x)).abs() < 1e-12 * (1 + degree) as f64, "degree {degree} at {x}");
            }
        }
    }

    #[test]
    fn parity_saves_products() {
        let even = EvalPlan::new(&dense(30).with_parity(Parity::Even)).unwrap().cost();
        let full = EvalPlan::new(&dense(30)).unwrap().cost();
        assert!(even.products <= 9 && even.relinearisations <= 8, "{even:?}");
        assert!(even.products < full.products);
        let odd = EvalPlan::new(&dense(31).with_parity(Parity::Odd)).unwrap().cost();
        assert!(odd.products <= 13 && odd.relinearisations <= 10, "{odd:?}");
    }

    #[test]
    fn products_grow_like_the_square_root() {
        for degree in [15usize, 31, 63, 127, 255] {
            let cost = EvalPlan::new(&dense(degree)).unwrap().cost();
            let bound = (2.0 * degree as f64).sqrt() + 2.0 * (degree as f64).log2() + 2.0;
            assert!(f64::from(cost.relinearisations) <= bound, "degree {degree}: {cost:?}, bound {bound}");
        }
    }
}
