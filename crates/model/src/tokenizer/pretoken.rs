//! Cutting text into words by GPT-2's rule:
//! `'s|'t|'re|'ve|'m|'ll|'d| ?letters+| ?digits+| ?others+|space+(?!non-space)|space+`.

/// The words of a text, in order and without loss.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (word, tail) = rest.split_at(first_word(rest));
        rest = tail;
        Some(word)
    })
}

#[derive(PartialEq, Clone, Copy)]
enum Class {
    Letter,
    Digit,
    Space,
    Other,
}

fn class(c: char) -> Class {
    if c.is_whitespace() {
        Class::Space
    } else if c.is_alphabetic() {
        Class::Letter
    } else if c.is_numeric() {
        Class::Digit
    } else {
        Class::Other
    }
}

/// Length in bytes of the first word of a text that is not empty.
fn first_word(text: &str) -> usize {
    for suffix in ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"] {
        if text.starts_with(suffix) {
            return suffix.len();
        }
    }
    let body = text.strip_prefix(' ').unwrap_or(text);
    if let Some(kind) = body.chars().next().map(class)
        && kind != Class::Space
    {
        let run = body.find(|c| class(c) != kind).unwrap_or(body.len());
        return text.len() - body.len() + run;
    }
    // A run of white space leaves its last character to the word that follows.
    let end = text.find(|c| class(c) != Class::Space).unwrap_or(text.len());
    if end == text.len() {
        return end;
    }
    let last = text[..end].chars().next_back().map_or(0, char::len_utf8);
    if end > last { end - last } else { end }
}

#[cfg(test)]
mod tests {
    #[test]
    fn cuts_like_gpt2() {
        let cut = |text: &'static str| super::words(text).collect::<Vec<_>>();
        assert_eq!(
            cut("Hello world's  end 42!\n\n x"),
            ["Hello", " world", "'s", " ", " end", " 42", "!", "\n\n", " x"]
        );
        assert_eq!(cut("a \nb  "), ["a", " ", "\n", "b", "  "]);
        assert_eq!(cut("it'll--x"), ["it", "'ll", "--", "x"]);
    }
}
