//! The CSV files that the `cipherlm` program writes, as rows by column name.

use anyhow::Context;
use std::collections::HashMap;
use std::path::Path;

/// One row.
pub(super) struct Row(HashMap<String, String>);

impl Row {
    /// A column as text, empty if there is none.
    pub(super) fn text(&self, column: &str) -> &str {
        self.0.get(column).map_or("", String::as_str)
    }

    /// A column as a number, NaN if it is none.
    pub(super) fn number(&self, column: &str) -> f64 {
        self.text(column).parse().unwrap_or(f64::NAN)
    }
}

/// All rows of a file with a header and without quotes.
pub(super) fn read(file: &Path) -> anyhow::Result<Vec<Row>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().context("the file is empty")?.split(',').collect();
    let row =
        |line: &str| Row(header.iter().zip(line.split(',')).map(|(h, v)| ((*h).into(), v.into())).collect());
    Ok(lines.filter(|line| !line.is_empty()).map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name() {
        let folder = cipherlm_testing::Scratch::new("table");
        let file = folder.join("table.csv");
        std::fs::write(&file, "a,b\nx,2.5\n\ny,\n").unwrap();
        let rows = read(&file).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].text("a"), rows[0].number("b")), ("x", 2.5));
        assert!(rows[1].number("b").is_nan() && rows[1].number("none").is_nan());
    }
}
