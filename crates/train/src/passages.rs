//! Passages of running text out of several files: what a model of open text learns from.

use crate::sentences::spread;

/// Bytes of a passage, and what is left of its last line.
const PASSAGE: usize = 2000;
/// What tokenised corpora set apart, and how it is written. Words come first: the signs behind them
/// must still stand apart.
const SIGNS: [(&str, &str); 16] = [
    (" 's ", "'s "),
    (" 't ", "'t "),
    (" 're ", "'re "),
    (" 've ", "'ve "),
    (" 'll ", "'ll "),
    (" @-@ ", "-"),
    (" @,@ ", ","),
    (" @.@ ", "."),
    (" ,", ","),
    (" .", "."),
    (" ;", ";"),
    (" :", ":"),
    (" !", "!"),
    (" ?", "?"),
    (" )", ")"),
    ("( ", "("),
];

/// Passages spread evenly over a text, about so many characters in all, or the whole text. Signs
/// that a tokenised corpus sets apart are joined to their words again.
pub(crate) fn passages(text: &str, characters: usize) -> String {
    let tokenised = text.contains(" @-@ ");
    let (mut passages, mut passage) = (Vec::new(), String::new());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match tokenised {
            true => passage += &written(line),
            false => passage += line,
        }
        passage.push('\n');
        if passage.len() >= PASSAGE {
            passages.push(std::mem::take(&mut passage));
        }
    }
    passages.extend((!passage.is_empty()).then_some(passage));
    let length: usize = passages.iter().map(String::len).sum();
    let share = characters.min(length) as f64 / length.max(1) as f64;
    spread(&passages, (share * passages.len() as f64).ceil() as usize).concat()
}

/// A line as it was before it was cut into words.
fn written(line: &str) -> String {
    let mut line = format!("{line} ");
    for (apart, joined) in SIGNS {
        line = line.replace(apart, joined);
    }
    // Quotation marks open and close by turns.
    let mut out = String::with_capacity(line.len());
    for (at, part) in line.split('"').enumerate() {
        if at > 0 {
            out.push('"');
        }
        out += if at % 2 == 1 { part.trim() } else { part };
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_that_a_corpus_sets_apart_are_joined_again() {
        let line = "The \" first @-@ rate \" cat ( 3 @.@ 5 kg ) , Sam 's , didn 't sleep ; it ate .";
        assert_eq!(written(line), "The \"first-rate\" cat (3.5 kg), Sam's, didn't sleep; it ate.");
    }

    #[test]
    fn passages_are_spread_over_the_text_and_no_line_is_cut() {
        let line = |i: usize| format!("{i} {}", "word ".repeat(100).trim());
        let text: String = (0..100).map(|i| line(i) + "\n\n").collect();
        let some = passages(&text, 10_000);
        assert!((10_000..14_000).contains(&some.len()), "{}", some.len());
        let numbers: Vec<usize> =
            some.lines().map(|l| l.split(' ').next().unwrap().parse().unwrap()).collect();
        assert!(
            numbers.iter().all(|&i| some.contains(&line(i))) && numbers.last() > Some(&70),
            "{numbers:?}"
        );
        assert_eq!(passages(&text, usize::MAX), text.replace("\n\n", "\n"));
        assert_eq!(passages("", 5), "");
    }
}
