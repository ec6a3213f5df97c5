use super::*;
use crate::slots::Machine;

fn machine() -> Clear {
    let groups =
        [vec![(1u64 << 49) - 123], vec![(1 << 40) + 1], vec![(1 << 40) - 87], vec![1 << 20, (1 << 20) + 7]];
    let chain = Chain::new(8, &groups, Scale::from_log2(40)).unwrap();
    let profile =
        RefreshProfile { kind: RefreshKind::Full, input_level: 0, output_level: 3, range: 4.0, error: 1e-6 };
    Clear::new(chain).with_refresh(profile)
}

#[test]
fn operands_meet_at_one_level_and_scale() {
    let m = machine();
    let high = m.input(vec![0.5, -1.5], 3).unwrap();
    let low = m.input(2.0, 1).unwrap();
    let sum = m.add(&high, &low).unwrap();
    assert_eq!((m.level(&sum), m.is_canonical(&sum)), (1, true));
    assert_eq!(sum.slots().unwrap()[1].re, 0.5);
    let product = m.mul(&high, &low).unwrap();
    assert_eq!((m.level(&product), m.is_canonical(&product)), (0, true));
    assert_eq!(product.real()[..2], [1.0, -3.0]);
}

#[test]
fn lazy_products_add_before_one_rescale() {
    let m = machine();
    let x = m.input(3.0, 3).unwrap();
    let square = m.mul_lazy(&x, &x).unwrap();
    let twice = m.mul_plain_lazy(&x, &Plain::from(2.0)).unwrap();
    assert!(m.is_product(&square) && m.is_product(&twice));
    let sum = m.add(&m.add(&square, &twice).unwrap(), &x).unwrap();
    let sum = m.settle(&sum).unwrap();
    assert_eq!((m.level(&sum), m.is_canonical(&sum), sum.real()[7]), (2, true, 18.0));
    assert_eq!(m.log().total(OpKind::Rescale).count, 1);
}

#[test]
fn levels_run_out_and_come_back() {
    let m = machine();
    let x = m.input(1.25, 1).unwrap();
    let bottom = m.square(&x).unwrap();
    assert!(matches!(m.square(&bottom), Err(Error::LevelExhausted { have: 0, need: 1, .. })));
    assert!(matches!(m.to_level(&bottom, 2), Err(Error::LevelRaise { have: 0, want: 3 })));
    let fresh = m.refresh(&bottom, RefreshKind::Full, Some(2)).unwrap();
    assert_eq!((m.level(&fresh), m.is_canonical(&fresh), fresh.real()[0]), (2, true, 1.5625));
    assert!(matches!(m.refresh(&bottom, RefreshKind::Real, None), Err(Error::NoRefresh { .. })));
    let large = m.add_const(&bottom, 9.0.into()).unwrap();
    assert!(matches!(m.refresh(&large, RefreshKind::Full, None), Err(Error::RefreshRange { .. })));
}

#[test]
fn a_pair_is_refreshed_in_one_go() {
    let m = machine();
    let (a, b) = (m.input(vec![0.5, -0.25], 1).unwrap(), m.input(vec![1.0, 2.0, 3.0, -1.0], 2).unwrap());
    let (a, b) = m.refresh_pair(&a, &b, None).unwrap();
    assert_eq!(a.real()[..2], [0.5, -0.25]);
    assert_eq!(b.real()[..4], [1.0, 2.0, 3.0, -1.0]);
    assert_eq!((m.level(&a), m.level(&b)), (3, 3));
    assert_eq!(m.log().total(OpKind::Refresh).count, 1);
}

#[test]
fn values_that_do_not_fit_are_refused() {
    let m = machine();
    assert!(matches!(m.input(1e6, 0), Err(Error::Overflow { level: 0, .. })));
    assert!(matches!(m.input(f64::NAN, 2), Err(Error::NotFinite { .. })));
    assert!(matches!(m.input(vec![1.0; 3], 2), Err(Error::Period { have: 3, slots: 8 })));
    assert!(m.input(1.0, 4).is_err());
    let x = m.input(1.0, 2).unwrap();
    assert!(matches!(
        m.mul_plain_at(&x, &Plain::from(1.0), Scale::new(0.25)),
        Err(Error::ScaleTooSmall { .. })
    ));
    let y = m.drop_to(&x, 1).unwrap();
    assert!(matches!(m.add_aligned(&x, &y), Err(Error::LevelMismatch { left: 2, right: 1 })));
}

#[test]
fn a_dry_run_knows_depth_and_keys() {
    let m = Clear::dry(Chain::uniform(1 << 15, 5, 40, 50).unwrap());
    let x = m.input(1.0, 5).unwrap();
    let y = m.rotate_sum(&m.square(&x).unwrap(), 4, 8).unwrap();
    assert_eq!(m.level(&y), 4);
    assert!(y.slots().is_none());
    let keys: Vec<_> = m.log().keys().into_keys().collect();
    assert_eq!(keys, [KeyUse::Relin, KeyUse::Rotate(4), KeyUse::Rotate(8), KeyUse::Rotate(16)]);
}
