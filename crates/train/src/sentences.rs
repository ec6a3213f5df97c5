//! Single sentences and short paragraphs out of running text: what a sentence encoder learns from.

/// Every so manieth paragraph that is short enough stands as a whole.
const WHOLE: usize = 4;
/// What stands in for words that a corpus left out.
const UNKNOWN: &str = "<unk>";

/// Sentences of a text, of at least `least` and at most `most` words, each once, in order; every
/// fourth paragraph of that size as a whole instead. Paragraphs are lines. Marks of tokenised
/// corpora are undone, and sentences with a word left out are dropped.
pub(crate) fn sentences(text: &str, least: usize, most: usize) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    let mut out = Vec::new();
    let mut paragraphs = 0;
    for line in text.lines() {
        let line = line.replace(" @-@ ", "-").replace(" @,@ ", ",").replace(" @.@ ", ".");
        let words: Vec<&str> = line.split_whitespace().collect();
        paragraphs += 1;
        let fits = |words: &[&str]| (least..=most).contains(&words.len()) && !words.contains(&UNKNOWN);
        let whole = paragraphs % WHOLE == 0 && fits(&words);
        let parts = if whole { vec![&words[..]] } else { split(&words) };
        for part in parts.into_iter().filter(|part| fits(part)) {
            let sentence = part.join(" ");
            // Headings are not sentences.
            if !sentence.starts_with("= ") && seen.insert(sentence.clone()) {
                out.push(sentence);
            }
        }
    }
    out
}

/// Words grouped so that each group but the last ends with a full stop, a question or an
/// exclamation mark.
fn split<'w, 'a>(words: &'a [&'w str]) -> Vec<&'a [&'w str]> {
    let ends = |word: &&str| {
        let bare = word.trim_end_matches(['"', '\'', ')', '\u{201d}', '\u{2019}']);
        bare.ends_with(['.', '?', '!']) && (bare.len() > 3 || bare.len() == 1)
    };
    words.split_inclusive(ends).collect()
}

/// `count` entries spread evenly over a list, or all of it.
pub(crate) fn spread<T: Clone>(list: &[T], count: usize) -> Vec<T> {
    let count = count.min(list.len());
    (0..count).map(|i| list[i * list.len() / count].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_where_sentences_end() {
        let text = "= A heading of four words =\n\
            The cat sat down . It saw Mr. Smith at 3 @.@ 5 metres ! \" Well ? \"\n\
            A <unk> word stands in this sentence. This one has none of them.\n\
            One whole paragraph here. It has two sentences.\n\
            This one has none of them. Short.\n";
        let found = sentences(text, 4, 20);
        assert_eq!(
            found,
            [
                "The cat sat down .",
                "It saw Mr. Smith at 3.5 metres !",
                "This one has none of them.",
                "One whole paragraph here. It has two sentences.",
            ]
        );
        assert!(sentences(text, 4, 6).iter().all(|s| s.split(' ').count() <= 6));
    }

    #[test]
    fn a_choice_is_spread_over_the_list() {
        assert_eq!(spread(&[0, 1, 2, 3, 4, 5], 3), [0, 2, 4]);
        assert_eq!(spread(&[0, 1], 5), [0, 1]);
        assert!(spread::<u8>(&[], 5).is_empty());
    }
}
