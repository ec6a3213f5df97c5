//! The whole circuit on clear slots, every record in turn a match, and on ciphertexts of a small
//! insecure ring.

use cipherlm_circuits::slots::{
    Chain, Clear, ClearVector, Encrypted, EncryptedVector, Machine, Noise, Primitives,
};
use cipherlm_ckks::noise::NoiseModel;
use cipherlm_ckks::{Complex64, KeyRequest, Params, Plaintext, SecretKey};
use peer_fhe_benchmarking::{Error, Result, Task};
use std::path::Path;
use std::sync::LazyLock;

use crate::answer;
use crate::circuit::{self, Database, INDICATOR_LEVEL};
use crate::instance::Instance;
use crate::layout::{Layout, PAYLOAD, Table, UNIT};
use crate::threshold::Threshold;

/// A number in [0, 1) from its index.
fn noise(index: usize) -> f64 {
    (index as f64 * 12.9898 + 1.0).sin().mul_add(43758.5453, 0.0).rem_euclid(1.0)
}

fn normalised(mut record: Vec<f32>) -> Vec<f32> {
    let norm = record.iter().map(|x| x * x).sum::<f32>().sqrt();
    record.iter_mut().for_each(|x| *x /= norm);
    record
}

/// Records and payloads, and a query that the records of `matches` are close to.
struct Case {
    layout: Layout,
    records: Vec<f32>,
    payloads: Vec<i16>,
    query: Vec<f32>,
    expected: Vec<[i16; PAYLOAD]>,
}

impl Case {
    fn new(layout: Layout, matches: &[usize]) -> Self {
        let dim = layout.dim;
        let random = |seed: usize| (0..dim).map(move |k| noise(seed * dim + k) as f32 - 0.5).collect();
        let query = normalised(random(900_001));
        let records: Vec<f32> = (0..layout.records)
            .flat_map(|record| {
                let far: Vec<f32> = normalised(random(record));
                let along: f32 = far.iter().zip(&query).map(|(a, b)| a * b).sum();
                // The same angle for all matches, and none for the others.
                let (a, b) = if matches.contains(&record) { (2.5, 1.0) } else { (0.0, 1.0) };
                normalised(far.iter().zip(&query).map(|(x, q)| a * q + b * (x - along * q)).collect())
            })
            .collect();
        let payload = |record: usize, k: usize| (noise(7 * record + k + 77) * 65536.0 - 32768.0) as i16;
        let payloads: Vec<i16> =
            (0..layout.records * PAYLOAD).map(|i| payload(i / PAYLOAD, i % PAYLOAD)).collect();
        let mut expected: Vec<[i16; PAYLOAD]> =
            matches.iter().map(|&record| std::array::from_fn(|k| payload(record, k))).collect();
        expected.sort_unstable();
        Self { layout, records, payloads, query, expected }
    }
}

/// The vectors of a case, brought into a machine by `enter`.
struct Memory<'a, F> {
    case: &'a Case,
    top: usize,
    enter: F,
}

impl<V, F: Fn(Vec<Complex64>, usize) -> V + Sync> Database<V> for Memory<'_, F> {
    fn records(&self, block: usize, shift: usize) -> Result<Vec<V>> {
        let Case { layout, records, .. } = self.case;
        let vector = |group| (self.enter)(layout.database(records, block, shift, group), self.top);
        Ok((0..layout.groups).map(vector).collect())
    }

    fn payload(&self, table: Table, vector: usize, turn: usize) -> Result<V> {
        let Case { layout, payloads, .. } = self.case;
        Ok((self.enter)(layout.payload(payloads, table, vector, turn), INDICATOR_LEVEL))
    }
}

/// The whole circuit: the two tables, and the count.
fn run<M: Machine>(
    machine: &M,
    case: &Case,
    enter: impl Fn(Vec<Complex64>, usize) -> M::Vector + Sync,
) -> ([M::Vector; 2], M::Vector) {
    let (layout, top) = (&case.layout, machine.chain().top());
    let query = layout.query(&case.query).into_iter().map(|vector| enter(vector, top)).collect();
    let database = Memory { case, top, enter: &enter };
    let query = circuit::expand(machine, layout, query).unwrap();
    assert_eq!(query.len(), layout.groups);
    let scores = circuit::scores(machine, layout, &query, &database).unwrap();
    assert_eq!(scores.len(), layout.vectors());
    static THRESHOLD: LazyLock<Threshold> = LazyLock::new(|| Threshold::new().unwrap());
    let indicators = circuit::indicators(machine, &THRESHOLD, &scores).unwrap();
    let answer = circuit::retrieve(machine, layout, &indicators, &database).unwrap();
    (answer, circuit::count(machine, &indicators).unwrap())
}

fn decoded(layout: &Layout, answer: [Vec<Complex64>; 2]) -> Result<Vec<[i16; PAYLOAD]>> {
    let [a, b] = answer;
    answer::peel(layout, [answer::buckets(layout, Table::A, &a)?, answer::buckets(layout, Table::B, &b)?])
}

fn clear(slots: usize) -> Clear {
    Clear::new(Chain::uniform(slots, 11, 44, 50).unwrap())
}

fn on_clear(case: &Case) -> (Result<Vec<[i16; PAYLOAD]>>, f64) {
    let machine = clear(case.layout.slots);
    let enter = |values: Vec<Complex64>, level| machine.input(values, level).unwrap();
    let (answer, count) = run(&machine, case, enter);
    let slots = |vector: &ClearVector| vector.slots().unwrap().to_vec();
    let count = slots(&count)[0].re / case.layout.folds as f64;
    (decoded(&case.layout, answer.each_ref().map(slots)), count)
}

#[test]
fn layouts_repeat_small_databases_and_stack_large_ones() {
    let shape = |layout: Layout| (layout.period, layout.shifts, layout.folds, layout.groups, layout.blocks);
    assert_eq!(shape(Layout::new(1 << 14, 128, 1_000).unwrap()), (512, 1, 32, 4, 1));
    assert_eq!(shape(Layout::new(1 << 14, 128, 50_000).unwrap()), (1 << 14, 4, 1, 32, 2));
    assert_eq!(shape(Layout::new(1 << 14, 256, 1_000_000).unwrap()), (1 << 14, 4, 1, 64, 31));
    assert!(matches!(Layout::new(1 << 14, 100, 10), Err(Error::Shape { .. })));
    assert!(matches!(Layout::new(1 << 14, 128, 40_000_000), Err(Error::Shape { .. })));
}

#[test]
fn no_two_records_share_both_buckets_and_a_bucket_knows_its_record() {
    for records in [20, 61, 128, 200, 256] {
        let layout = Layout::new(64, 8, records).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        let mut found = 0;
        for vector in 0..layout.vectors() {
            for slot in (0..layout.slots).filter(|&slot| layout.record(vector, slot).is_some()) {
                let buckets = Table::BOTH.map(|table| {
                    let (bucket, marker) = layout.bucket(table, vector, slot);
                    assert_eq!(layout.place(table, bucket, marker), Some((vector, slot)));
                    assert!(2 * layout.marker_base() > marker, "two markers are no third");
                    bucket
                });
                assert!(seen.insert(buckets), "{records} records, vector {vector}, slot {slot}");
                found += 1;
            }
        }
        assert_eq!(found, records);
    }
}

#[test]
fn every_record_is_found_alone() {
    for (dim, records) in [(8, 20), (8, 200), (16, 100)] {
        let layout = Layout::new(64, dim, records).unwrap();
        for record in 0..records {
            let case = Case::new(layout.clone(), &[record]);
            let (payloads, count) = on_clear(&case);
            assert_eq!(payloads.unwrap(), case.expected, "record {record} of {records}");
            assert!((count - 1.0).abs() < 1e-4, "{count}");
        }
    }
}

#[test]
fn several_matches_are_told_apart_and_too_many_are_said_to_be() {
    let layout = Layout::new(256, 16, 900).unwrap();
    for seed in 0..20 {
        let matches: std::collections::BTreeSet<usize> =
            (0..5).map(|k| (noise(31 * seed + k) * 900.0) as usize).collect();
        let case = Case::new(layout.clone(), &matches.into_iter().collect::<Vec<_>>());
        let (payloads, count) = on_clear(&case);
        assert_eq!(payloads.unwrap(), case.expected, "seed {seed}");
        assert_eq!(count.round() as usize, case.expected.len());
    }
    let none = Case::new(layout.clone(), &[]);
    assert_eq!(on_clear(&none).0.unwrap(), Vec::<[i16; PAYLOAD]>::new());
    let crowd = Case::new(layout, &(0..300).collect::<Vec<_>>());
    assert!(matches!(on_clear(&crowd).0, Err(Error::Crowded { .. })));
}

#[test]
fn an_answer_between_integers_is_refused() {
    assert_eq!(answer::integer(-3.1).unwrap(), -3);
    for bad in [0.5, 2.2, f64::NAN, f64::INFINITY] {
        assert!(matches!(answer::integer(bad), Err(Error::Precision { .. })), "{bad}");
    }
}

#[test]
fn ciphertexts_give_what_clear_slots_give() {
    let builder = Params::builder().degree(1 << 10).base(50.0).levels(44.0, 11).special(46, 6);
    let params = Params::insecure_for_tests(builder).unwrap();
    for (dim, records) in [(16, 40), (32, 1500)] {
        let layout = Layout::new(params.slots(), dim, records).unwrap();
        let case = Case::new(layout, &[3, 17, 39]);
        let dry = clear(params.slots());
        run(&dry, &case, |values, level| dry.input(values, level).unwrap());
        let request: KeyRequest = circuit::key_request(dry.log(), &params);
        let secret = SecretKey::generate(&params).unwrap();
        let machine = Encrypted::new(&params, secret.id(), secret.key_set(&request).unwrap()).unwrap();
        let enter = |values: Vec<Complex64>, level| {
            let scale = params.default_scale(level);
            let plaintext = Plaintext::encode(&params, &values, values.len(), scale).unwrap();
            machine.input(secret.encrypt(&plaintext, level).unwrap()).unwrap()
        };
        let (answer, count) = run(&machine, &case, enter);
        let slots = |vector: &EncryptedVector| {
            secret.decrypt(vector.ciphertext()).unwrap().decode().as_slice().to_vec()
        };
        assert_eq!(decoded(&case.layout, answer.each_ref().map(slots)).unwrap(), case.expected);
        let count = slots(&count)[0].re / case.layout.folds as f64;
        // Near and not equal: encryption is randomised.
        assert!((count - 3.0).abs() < 1e-3 && count != 3.0, "{count}");
    }
}

/// The largest error that the noise machine predicts for any number of an answer, at the real
/// parameters of a size.
fn predicted(size: &str) -> f64 {
    let task = Task::parse(Path::new("."), &[size.into()]).unwrap();
    let Instance { params, layout } = Instance::new(&task).unwrap();
    assert!(params.security().bits >= 128.0 && !params.is_insecure());
    let matches: Vec<usize> = (0..16).map(|k| k * layout.records / 16).collect();
    let case = Case::new(layout, &matches);
    let machine = Noise::new(NoiseModel::new(&params), 7).unwrap();
    let enter = |values: Vec<Complex64>, level| machine.input(values, level).unwrap();
    let (answer, count) = run(&machine, &case, enter);
    let noisy = answer.each_ref().map(|vector| vector.noisy().to_vec());
    assert_eq!(decoded(&case.layout, noisy).unwrap(), case.expected);
    let worst = answer.iter().map(|vector| vector.prediction().worst * UNIT).fold(0.0, f64::max);
    worst.max(count.prediction().worst / case.layout.folds as f64)
}

#[test]
fn noise_leaves_every_number_of_an_answer_four_bits_from_the_next_one() {
    let error = predicted("0");
    println!("toy: predicted error of an answer at most {error:.2e}");
    assert!(error < 2f64.powi(-5), "{error}");
}

#[test]
#[ignore = "slow: half a minute"]
fn slow_noise_leaves_every_number_of_a_small_answer_four_bits_from_the_next_one() {
    let error = predicted("1");
    println!("small: predicted error of an answer at most {error:.2e}");
    assert!(error < 2f64.powi(-5), "{error}");
}
