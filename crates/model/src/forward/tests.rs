//! What is counted, and where, without a whole pass.

use super::*;
use crate::{Shape, random};

#[test]
fn what_is_no_number_is_outside_every_range() {
    let model = random::certified("observed", &Shape::preset("test").unwrap(), 1).unwrap();
    let range = model.spec().sites[0].range;
    let inside = 0.5 * (range.lo + range.hi);
    for (values, violations) in [
        (vec![inside, range.lo, range.hi], 0),
        (vec![inside, f64::NAN, inside], 1),
        (vec![inside, range.hi * 1.5 + 1.0, f64::INFINITY], 2),
    ] {
        let mut runner = Runner::new(&model, Mode::Exact).unwrap();
        runner.observe(0, &values);
        assert_eq!(runner.stats[0].violations, violations, "{values:?}");
    }
}

#[test]
fn the_first_site_of_the_encrypted_part_is_not_in_the_clear() {
    for preset in ["test", "bert-tiny"] {
        let model = random::certified("entry", &Shape::preset(preset).unwrap(), 1).unwrap();
        let runner = Runner::new(&model, Mode::Polynomial).unwrap();
        let first = runner.site_at[runner.program.entry.1];
        assert!(!runner.in_the_clear(first), "{preset}");
        assert!((0..first).all(|site| runner.in_the_clear(site)), "{preset}");
    }
}
