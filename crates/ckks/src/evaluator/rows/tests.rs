//! Rows of products in one pass against the operations they stand for, bit by bit.

use super::*;
use crate::{Complex64, KeyRequest, KeySet, Plaintext, SecretKey, presets};

const DEGREE: usize = 1 << 12;
const LEVEL: usize = 2;
const STEPS: [i64; 5] = [0, 1, 3, -2, 700];

fn values(count: usize, seed: usize) -> Vec<Complex64> {
    let value = |i: usize| ((i * 37 + seed * 61) % 97) as f64 / 48.5 - 1.0;
    (0..count).map(|i| Complex64::new(value(i), value(i * i + 5))).collect()
}

fn setup(degree: usize) -> (SecretKey, Evaluator<KeySet>) {
    let params = presets::insecure::small(degree, 40.0, LEVEL).unwrap();
    let secret = SecretKey::generate(&params).unwrap();
    let keys = secret.key_set(KeyRequest::new().rotations(&params, STEPS, LEVEL)).unwrap();
    let evaluator = Evaluator::new(&params, keys);
    (secret, evaluator)
}

fn encrypt(secret: &SecretKey, seed: usize, level: usize) -> Ciphertext {
    let params = secret.params();
    let values = values(params.slots(), seed);
    let plaintext = Plaintext::encode(params, &values, params.slots(), params.default_scale(level)).unwrap();
    secret.encrypt(&plaintext, level).unwrap()
}

/// The sum of the single products of a row.
fn slowly(
    evaluator: &Evaluator<KeySet>,
    columns: &[(&Hoisted<'_>, GaloisElement)],
    special: usize,
    row: &[Option<LiftedPlaintext>],
) -> [Poly<Eval>; 2] {
    let mut sum: Option<[Poly<Eval>; 2]> = None;
    for ((hoisted, element), plaintext) in columns.iter().zip(row) {
        let Some(plaintext) = plaintext else { continue };
        let rotated = if element.is_identity() {
            evaluator.extend(hoisted.ciphertext, special).unwrap()
        } else {
            evaluator.rotate_hoisted_qp(hoisted, *element).unwrap()
        };
        let product = rotated.parts.each_ref().map(|part| plaintext.times(part).unwrap());
        match &mut sum {
            Some(sum) => sum.iter_mut().zip(&product).for_each(|(s, p)| s.add_assign(p).unwrap()),
            None => sum = Some(product),
        }
    }
    sum.unwrap()
}

#[test]
fn rows_are_the_sums_of_single_products_bit_by_bit() {
    let (secret, evaluator) = setup(DEGREE);
    let params = secret.params();
    let inputs = [encrypt(&secret, 1, LEVEL), encrypt(&secret, 2, LEVEL)];
    let hoisted = inputs.each_ref().map(|input| evaluator.hoist(input).unwrap());
    // More rotations of the first input than one piece holds, and few of the second.
    let elements = [40, 3].map(|count| {
        let steps = STEPS.iter().cycle().take(count);
        steps.map(|&steps| GaloisElement::rotation(params, steps)).collect::<Vec<_>>()
    });
    let list: Vec<_> = hoisted.iter().zip(&elements).map(|(h, e)| (h, e.as_slice())).collect();
    let columns = evaluator.columns("test", &list).unwrap();
    let special = columns.specials()[1].unwrap();
    assert_eq!(columns.specials().iter().filter(|special| special.is_none()).count(), 9);
    let limbs = params.extended_limbs(LEVEL, special);
    // Plaintexts of all slots and of a short period, and rows that miss a piece or an input.
    let lifted = |row: usize, place: usize| {
        let skip = match row {
            0 => false,
            1 => place >= 40,
            2 => place < 35,
            _ => place.is_multiple_of(3),
        };
        let period = if (row + place).is_multiple_of(2) { DEGREE / 2 } else { 8 };
        let scale = params.default_scale(LEVEL);
        let plaintext = Plaintext::encode(params, &values(period, 100 * row + place), period, scale).unwrap();
        (!skip).then(|| plaintext.lift(&limbs).unwrap())
    };
    let rows: Vec<Vec<_>> = (0..4).map(|row| (0..43).map(|place| lifted(row, place)).collect()).collect();
    let (sums, rotating) = evaluator.rotated_rows(&columns, special, &rows).unwrap();
    assert!((0.0..=1.0).contains(&rotating));
    let single: Vec<_> =
        hoisted.iter().zip(&elements).flat_map(|(h, e)| e.iter().map(move |&e| (h, e))).collect();
    for (number, (sum, row)) in sums.iter().zip(&rows).enumerate() {
        let expected = slowly(&evaluator, &single, special, row);
        for (found, expected) in sum.parts.iter().zip(&expected) {
            assert_eq!(found.limbs(), expected.limbs());
            for limb in found.limbs().iter() {
                assert_eq!(
                    found.limb(limb).unwrap(),
                    expected.limb(limb).unwrap(),
                    "row {number}, limb {limb}"
                );
            }
        }
    }
}

#[test]
fn rows_that_do_not_fit_their_columns_are_refused() {
    let (secret, evaluator) = setup(1 << 12);
    let params = secret.params();
    let (x, low) = (encrypt(&secret, 1, LEVEL), encrypt(&secret, 1, 1));
    let elements = [0, 1].map(|steps| GaloisElement::rotation(params, steps));
    let hoisted = [&x, &low].map(|x| evaluator.hoist(x).unwrap());
    let mixed = [(&hoisted[0], elements.as_slice()), (&hoisted[1], elements.as_slice())];
    let refused = |list: &[_]| evaluator.columns("test", list).map(drop);
    assert!(matches!(refused(&mixed), Err(Error::LevelMismatch { .. })));
    let missing = [GaloisElement::rotation(params, 2)];
    assert!(matches!(refused(&[(&hoisted[0], missing.as_slice())]), Err(Error::MissingKey { .. })));
    let columns = evaluator.columns("test", &[(&hoisted[0], elements.as_slice())]).unwrap();
    let special = columns.specials()[1].unwrap();
    let plaintext = Plaintext::encode_real(params, &[0.5], 1, params.default_scale(LEVEL)).unwrap();
    let lifted = Some(plaintext.lift(&params.extended_limbs(LEVEL, special)).unwrap());
    let run = |special, row: Vec<_>| evaluator.rotated_rows(&columns, special, &[row]).map(drop);
    for row in [vec![lifted.clone()], vec![lifted.clone(); 3], vec![None, None]] {
        assert!(matches!(run(special, row), Err(Error::OperandCount { .. })));
    }
    let other = run(special + 1, vec![None, lifted.clone()]);
    assert!(matches!(other, Err(Error::BadKeyShape { .. })), "{other:?}");
    assert!(run(special, vec![None, lifted]).is_ok());
}
