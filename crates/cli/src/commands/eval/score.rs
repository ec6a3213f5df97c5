//! Scores with their standard errors.

/// What a task found.
pub(super) struct Score {
    pub(super) items: usize,
    pub(super) metric: &'static str,
    pub(super) score: f64,
    pub(super) stderr: f64,
    /// Further scores of the same items.
    pub(super) more: Vec<(&'static str, f64)>,
}

/// Mean of values and its standard error.
pub(super) fn mean(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let spread = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, (spread / n).sqrt())
}

/// Spearman's rank correlation and its standard error (Bonett and Wright, Psychometrika 65, 2000).
pub(super) fn spearman(a: &[f64], b: &[f64]) -> (f64, f64) {
    let (a, b) = (ranks(a), ranks(b));
    let ((mean_a, _), (mean_b, _)) = (mean(&a), mean(&b));
    let product = |x: &[f64], mx: f64, y: &[f64], my: f64| -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum()
    };
    let square = product(&a, mean_a, &a, mean_a) * product(&b, mean_b, &b, mean_b);
    let rho = product(&a, mean_a, &b, mean_b) / square.sqrt();
    let freedom = (a.len() as f64 - 3.0).max(1.0);
    (rho, (1.0 - rho * rho) * ((1.0 + 0.5 * rho * rho) / freedom).sqrt())
}

/// Ranks from 1; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|i, j| values[*i].total_cmp(&values[*j]));
    let mut out = vec![0.0; values.len()];
    for same in order.chunk_by(|i, j| values[*i] == values[*j]) {
        let first = order.iter().position(|i| i == &same[0]).unwrap_or(0);
        same.iter().for_each(|i| out[*i] = first as f64 + 0.5 * (same.len() + 1) as f64);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlations_by_hand() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
        assert!((spearman(&[1.0, 2.0, 3.0, 4.0], &[1.0, 4.0, 9.0, 16.0]).0 - 1.0).abs() < 1e-12);
        // 1 - 6 * (1 + 1 + 0 + 0 + 0) / (5 * 24).
        let (rho, error) = spearman(&[2.0, 1.0, 3.0, 4.0, 5.0], &[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert!((rho - 0.9).abs() < 1e-12 && error > 0.1, "{rho} {error}");
    }

    #[test]
    fn means_have_the_error_of_a_proportion() {
        let (mean, error) = mean(&[1.0, 1.0, 1.0, 0.0]);
        assert!((mean - 0.75).abs() < 1e-12 && (error - 0.25).abs() < 1e-12, "{mean} {error}");
    }
}
