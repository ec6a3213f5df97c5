//! The README stays short, and its figures stay in code and in generated tables.

/// Lines in the README.
const LINES: usize = 90;
/// Digits in its prose.
const DIGITS: usize = 20;

/// Refuses a README that grew, or that became a notebook of measurements.
pub(super) fn check(found: &mut Vec<String>) -> anyhow::Result<()> {
    let text = std::fs::read_to_string("README.md")?;
    let lines = text.lines().count();
    if lines > LINES {
        found.push(format!("README.md: {lines} lines; at most {LINES}: move details into docs/"));
    }
    let digits = digits_in_prose(&text);
    if digits > DIGITS {
        found.push(format!(
            "README.md: {digits} digits in prose; at most {DIGITS}: figures belong into generated tables"
        ));
    }
    Ok(())
}

/// Digits outside code, tables and the targets of links.
fn digits_in_prose(text: &str) -> usize {
    let mut fenced = false;
    let mut digits = 0;
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced && !line.starts_with('|') && !line.starts_with("<!--") {
            digits += without_code_and_targets(line).chars().filter(char::is_ascii_digit).count();
        }
    }
    digits
}

fn without_code_and_targets(line: &str) -> String {
    let outside = line.split('`').step_by(2);
    let mut kept = String::new();
    for part in outside {
        let mut pieces = part.split("](");
        kept.push_str(pieces.next().unwrap_or_default());
        pieces.for_each(|piece| kept.push_str(piece.split_once(')').map_or("", |(_, rest)| rest)));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::digits_in_prose;

    #[test]
    fn figures_in_code_tables_and_links_are_not_prose() {
        let text = "one 1 of `2^16` in [x](docs/3.md) and 45\n```\n678\n```\n| 9 |\n<!-- table: 10 -->\n";
        assert_eq!(digits_in_prose(text), 3);
    }
}
