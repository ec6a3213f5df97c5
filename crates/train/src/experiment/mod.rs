//! Experiments: which powers, shifts and epsilons train, and how far PowerSoftmax is from its
//! softmax twin.
//!
//! Every experiment is a list of cells. A cell is one short training run; its result is one line of
//! a CSV file, written when the cell is done, so an interrupted experiment continues with the first
//! missing cell.

mod cell;
mod grid;
mod polarity;
mod ready;
mod report;

use std::path::Path;

use cipherlm_model::{Attention, Eps};

use crate::arch::{Form, shifted};
use crate::error::Result;

use cell::{Arm, Budget, Cell, Text, arms, twins_budget};
use grid::{data_folder, run};

pub use grid::Extent;

/// The grid of powers, shifts, epsilons and forms. The quick part takes minutes; the rest of the
/// grid is named in the report. Writes `stability.csv`, two charts and `stability.md` to `out`.
pub fn stability(extent: Extent, out: &Path, mut progress: impl FnMut(&str)) -> Result<()> {
    let quick = extent == Extent::Quick;
    let budget = Budget {
        width: 64,
        heads: 2,
        context: 64,
        vocab: 512,
        batch: 16,
        steps: if quick { 150 } else { 400 },
    };
    let text = if data_folder().join("tinystories").exists() { Text::Stories } else { Text::Generated };
    let (mut cells, mut omitted) = (Vec::new(), 0usize);
    for layers in [2, 4] {
        for seed in 1..=3 {
            let cell = |attention, form| Cell { attention, form, text, layers, seed, query_key_rate: 1.0 };
            let keep = !quick || (layers == 2 && seed == 1);
            let mut add = |c: Cell| if keep { cells.push(c) } else { omitted += 1 };
            add(cell(Attention::Softmax, Form::Mean));
            add(cell(Attention::Pointwise { mean: true }, Form::Stable));
            for power in [2u32, 4, 6, 8, 12, 16] {
                for shift in [0.0, 1.0, 3.0] {
                    for (form, eps) in epsilons(power, shift) {
                        let part = !quick || (shift != 1.0 && form_in_quick(form, eps, power, shift));
                        let c = cell(Attention::PowerSoftmax { p: power, c: shift, eps }, form);
                        if keep && part { cells.push(c) } else { omitted += 1 }
                    }
                }
            }
        }
    }
    let results = run(&cells, budget, &out.join("stability.csv"), extent, &mut progress)?;
    report::stability(&cells, &results, budget, text, omitted, out)
}

/// Softmax and PowerSoftmax with equal seeds, tokens and steps, at equal learning rates and with a
/// raised one for queries and keys. Writes `twins.csv`, a chart and `twins.md`. The quick part is
/// one seed, two layers and equal rates.
pub fn twins(extent: Extent, out: &Path, mut progress: impl FnMut(&str)) -> Result<()> {
    let quick = extent == Extent::Quick;
    let budget = twins_budget(quick);
    let public =
        [(Text::Stories, "tinystories"), (Text::Plays, "shakespeare"), (Text::Articles, "wikitext-2")];
    let there = public.into_iter().filter(|(_, folder)| data_folder().join(folder).exists());
    let mut texts: Vec<Text> = there.map(|(text, _)| text).collect();
    if texts.is_empty() {
        texts.push(Text::Generated);
    }
    let seeds = 1..=if quick { 1 } else { 3 };
    let depths: &[usize] = if quick { &[2] } else { &[2, 4] };
    let arms = arms();
    let (equal, raised): (Vec<&Arm>, Vec<&Arm>) = arms.iter().partition(|arm| arm.rate == 1.0);
    let mut cells = Vec::new();
    // The most informative first: an interrupted grid still compares the twins over seeds and
    // texts.
    for (group, &layers) in
        [equal, raised].iter().flat_map(|group| depths.iter().map(move |layers| (group, layers)))
    {
        for (seed, &text) in seeds.clone().flat_map(|seed| texts.iter().map(move |text| (seed, text))) {
            let kept = group.iter().filter(|arm| !quick || arm.rate == 1.0);
            cells.extend(kept.map(|arm| arm.cell(text, layers, seed)));
        }
    }
    let results = run(&cells, budget, &out.join("twins.csv"), extent, &mut progress)?;
    report::twins(&cells, &results, budget, out)
}

/// Which power and shift come closest to softmax at the budget of [`twins`], on the cell where the
/// shipped ones are furthest. Writes `shifts.csv` and `shifts.md`. The quick part is the first few.
pub fn shifts(extent: Extent, out: &Path, mut progress: impl FnMut(&str)) -> Result<()> {
    let quick = extent == Extent::Quick;
    let text = if data_folder().join("shakespeare").exists() { Text::Plays } else { Text::Generated };
    let base = Cell {
        attention: Attention::Softmax,
        form: Form::Mean,
        text,
        layers: 2,
        seed: 3,
        query_key_rate: 1.0,
    };
    let shapes = [
        (4, 3.0),
        (8, 6.0),
        (4, 6.0),
        (6, 4.5),
        (8, 8.0),
        (6, 6.0),
        (2, 3.0),
        (8, 12.0),
        (16, 16.0),
        (4, 4.0),
    ];
    let mut cells = vec![base.clone()];
    cells.extend(
        shapes
            .iter()
            .take(if quick { 3 } else { shapes.len() })
            .map(|&(power, shift)| Cell { attention: shifted(power, shift), ..base.clone() }),
    );
    let budget = twins_budget(quick);
    let results = run(&cells, budget, &out.join("shifts.csv"), extent, &mut progress)?;
    report::shifts(&cells, &results, budget, out)
}

/// Softmax, PowerSoftmax, the same after range control, frozen epsilons and polynomials, and the
/// lean layer, with equal seeds, text and steps. Writes `ready.csv` and `ready.md`, and checkpoints
/// to the folder `ready`. The quick part is one seed of one text.
pub fn ready(extent: Extent, out: &Path, mut progress: impl FnMut(&str)) -> Result<()> {
    ready::run(&extent, out, &mut progress)
}

/// A classifier of sentences and its softmax twin. Writes the model and `polarity.md`.
pub fn polarity(extent: Extent, out: &Path, mut progress: impl FnMut(&str)) -> Result<()> {
    polarity::run(&extent, out, &mut progress)
}

/// Epsilons tried for a power and shift: 1 % and 0.01 % of the starting row mean in the mean form,
/// the relative one in the stable form.
fn epsilons(power: u32, shift: f64) -> [(Form, Eps); 3] {
    let start = shift.max(1.0).powi(power as i32);
    [
        (Form::Mean, Eps::Absolute { value: 1e-2 * start }),
        (Form::Mean, Eps::Absolute { value: 1e-4 * start }),
        (Form::Stable, Eps::Relative { value: 1e-6 }),
    ]
}

fn form_in_quick(form: Form, epsilon: Eps, power: u32, shift: f64) -> bool {
    form == Form::Stable || epsilon == epsilons(power, shift)[0].1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::cell::{Outcome, key};
    use super::grid::{append, read};
    use super::*;
    use crate::error::Error;

    #[test]
    fn cells_have_distinct_keys_and_lines_read_back() {
        let cell = |attention, form| Cell {
            attention,
            form,
            text: Text::Generated,
            layers: 2,
            seed: 1,
            query_key_rate: 1.0,
        };
        let mut keys: Vec<String> = [2, 4, 12]
            .into_iter()
            .flat_map(|p| {
                epsilons(p, 3.0).map(|(form, eps)| (Attention::PowerSoftmax { p, c: 3.0, eps }, form))
            })
            .map(|(attention, form)| key(&cell(attention, form)))
            .collect();
        keys.push(key(&cell(Attention::Softmax, Form::Mean)));
        keys.extend(arms().iter().map(|arm| key(&arm.cell(Text::Stories, 2, 1))));
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
        assert!(keys.iter().all(|k| k.matches(',').count() == 7), "{keys:?}");

        let path = std::env::temp_dir().join(format!("cipherlm-cells-{}.csv", std::process::id()));
        let outcome =
            Outcome { perplexity: f64::NAN, distance: 1.5, score: 2.0, spread: 1e9, mode: "diverged".into() };
        append(&path, "# a", &keys[0], &outcome).unwrap();
        append(&path, "# a", &keys[1], &Outcome { perplexity: 9.25, ..outcome.clone() }).unwrap();
        let back = read(&path, "# a").unwrap();
        assert!(back[&keys[0]].perplexity.is_nan() && back[&keys[1]].perplexity == 9.25 && back.len() == 2);
        assert!(matches!(read(&path, "# b"), Err(Error::Corrupt { .. })));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn only_cells_of_that_name_are_run() {
        let folder = std::env::temp_dir().join(format!("cipherlm-only-{}", std::process::id()));
        let cells: Vec<Cell> = (1..=3).map(|seed| arms()[1].cell(Text::Generated, 1, seed)).collect();
        let budget = Budget { width: 8, heads: 2, context: 8, vocab: 300, batch: 1, steps: 1 };
        let mut lines = Vec::new();
        let csv = folder.join("cells.csv");
        let only = Extent::Only("generated,1,2,".into());
        let results = run(&cells, budget, &csv, only, &mut |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(results.keys().collect::<Vec<_>>(), [&key(&cells[1])]);
        assert!(lines.len() == 1 && lines[0].starts_with("2/3  generated,1,2,4,3,"), "{lines:?}");
        let report =
            run(&cells, budget, &csv, Extent::Report, &mut |_| panic!("a report trains nothing")).unwrap();
        assert_eq!(report.len(), 1);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_report_of_twins_counts_what_meets_the_aim() {
        let folder = std::env::temp_dir().join(format!("cipherlm-twins-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let arms = arms();
        let outcome = |perplexity| Outcome {
            perplexity,
            distance: 1.0,
            score: 1.0,
            spread: 1.0,
            mode: "trained".into(),
        };
        let mut results = BTreeMap::new();
        let mut cells = Vec::new();
        // Seed 1: softmax 100, (x+3)^4 101, with raised rates 80 and 90. Seed 2: 100 and 110, no
        // raised rates.
        for (seed, values) in
            [(1, vec![(0, 100.0), (1, 101.0), (4, 80.0), (5, 90.0)]), (2, vec![(0, 100.0), (1, 110.0)])]
        {
            cells.extend(arms.iter().map(|arm| arm.cell(Text::Stories, 2, seed)));
            for (arm, perplexity) in values {
                results.insert(key(&arms[arm].cell(Text::Stories, 2, seed)), outcome(perplexity));
            }
        }
        report::twins(&cells, &results, twins_budget(false), &folder).unwrap();
        let words = std::fs::read_to_string(folder.join("twins.md")).unwrap();
        for line in [
            "| TinyStories | 2 | 2 | 100.00 | 1.000 | 110.00 | 1.100 | not run | | not run | |",
            "| TinyStories | 2 | (x+3)^4 | 2 | 1.055 | 1.100 | 1 of 2 | 1.262 | 1.262 | 0 of 1 |",
            "| TinyStories | 2 | (x+3)^4, ×4 | 1 | 0.900 | 0.900 | 1 of 1 | 1.125 | 1.125 | 0 of 1 |",
            "| TinyStories | 2 | softmax, ×2 | 1 | 0.800 | 0.800 | 1 of 1 | | | |",
        ] {
            assert!(words.contains(line), "{line}\nis not in\n{words}");
        }
        assert!(!words.contains("| 2 | (x+8)^8 |"), "no summary of what was not run");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
