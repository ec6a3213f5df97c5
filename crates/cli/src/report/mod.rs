//! The report of an encrypted run as one self-contained HTML page: no network, no script, light and
//! dark, readable on a phone.

mod charts;
mod style;
mod svg;

use std::fmt::Write;

/// Everything the page shows. The caller fills it from a run; nothing here is computed twice.
pub(crate) struct Page {
    /// What ran, for the heading.
    pub(crate) title: String,
    /// One sentence under the heading: which machine (clear, noise, encrypted) made the numbers, on
    /// what.
    pub(crate) subtitle: String,
    /// The prompt, as the client typed it.
    pub(crate) prompt: String,
    /// What came back.
    pub(crate) answer: String,
    /// The few numbers a reader wants first: label, value.
    pub(crate) facts: Vec<(String, String)>,
    /// The verification table.
    pub(crate) checks: Vec<Check>,
    /// Every operation, in order of time.
    pub(crate) ops: Vec<OpRow>,
    /// Seconds by operator, bootstraps as a class of their own.
    pub(crate) by_operator: Vec<(String, f64)>,
    /// Seconds by operator, bootstraps charged to the operator that used up the levels.
    pub(crate) attributed: Vec<(String, f64)>,
    /// Seconds by primitive.
    pub(crate) by_primitive: Vec<(String, f64)>,
    /// Tables: the parameter card and the four cards of a private language model.
    pub(crate) cards: Vec<Card>,
}

/// One line of the verification table.
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) detail: String,
    pub(crate) pass: bool,
}

/// One operation of the run.
#[derive(Clone)]
pub(crate) struct OpRow {
    /// Which layer it belongs to; rows of the timeline.
    pub(crate) layer: String,
    /// What it is, in words.
    pub(crate) name: String,
    /// Its class; colours of the timeline.
    pub(crate) class: String,
    pub(crate) start_s: f64,
    pub(crate) seconds: f64,
    pub(crate) level_in: usize,
    pub(crate) level_out: usize,
    pub(crate) log_scale: f64,
    /// GiB held by the process when it began.
    pub(crate) memory: f64,
    /// Bits of precision that the noise model promises, and those that a decryption showed.
    pub(crate) predicted_bits: Option<f64>,
    pub(crate) measured_bits: Option<f64>,
}

/// A titled table of facts.
pub(crate) struct Card {
    pub(crate) title: String,
    pub(crate) rows: Vec<(String, String)>,
}

/// The paper's split of 93 s (Pythia-70M, 128 tokens, one A100; arXiv 2410.09457 v2, appendix G).
const PAPER_OPERATORS: [(&str, f64); 6] = [
    ("plaintext matmul", 28.0),
    ("bootstrap", 18.6),
    ("ciphertext matmul", 17.0),
    ("add, rescale, repack", 15.0),
    ("PowerSoftmax", 8.8),
    ("activation + norm", 7.7),
];
const PAPER_PRIMITIVES: [(&str, f64); 4] =
    [("bootstrap", 33.0), ("encode", 25.0), ("rotation", 13.6), ("other", 21.4)];

/// Renders the page.
pub(crate) fn render(page: &Page) -> String {
    let mut html = String::new();
    let pass = page.checks.iter().all(|c| c.pass);
    let _ = write!(
        html,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"generator\" \
         content=\"cipherlm report\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{}</title><style>{}</style></head><body><main>",
        escape(&page.title),
        style::CSS
    );
    let badge = if page.checks.is_empty() {
        String::new()
    } else if pass {
        "<span class=\"badge pass\">PASS</span>".into()
    } else {
        "<span class=\"badge fail\">FAIL</span>".into()
    };
    let _ = write!(
        html,
        "<header><h1>{} {badge}</h1><p>{}</p></header>",
        escape(&page.title),
        escape(&page.subtitle)
    );
    if !page.prompt.is_empty() {
        let _ = write!(
            html,
            "<section class=\"talk\"><p><b>prompt</b> {}</p><p><b>answer</b> <mark>{}</mark></p></section>",
            escape(&page.prompt),
            escape(&page.answer)
        );
    }
    facts(&mut html, &page.facts);
    checks(&mut html, &page.checks);
    section(&mut html, "Where the time went", &charts::timeline(&page.ops));
    section(&mut html, "By operator", &operators(page));
    section(&mut html, "By primitive", &primitives(page));
    section(&mut html, "Levels and scale along the plan", &charts::levels(&page.ops));
    section(&mut html, "Memory", &charts::memory(&page.ops));
    if page.ops.iter().any(|op| op.predicted_bits.is_some()) {
        section(&mut html, "Precision, predicted and measured", &charts::precision(&page.ops));
    }
    for card in &page.cards {
        let mut table = String::new();
        rows(&mut table, &card.rows);
        section(&mut html, &card.title, &table);
    }
    section(&mut html, "Every operation", &operations(&page.ops));
    html.push_str("</main></body></html>\n");
    html
}

/// Text made safe inside HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn section(html: &mut String, title: &str, body: &str) {
    let _ = write!(html, "<section><h2>{}</h2>{body}</section>", escape(title));
}

fn facts(html: &mut String, facts: &[(String, String)]) {
    html.push_str("<section class=\"tiles\">");
    for (label, value) in facts {
        let _ = write!(html, "<div><b>{}</b><span>{}</span></div>", escape(value), escape(label));
    }
    html.push_str("</section>");
}

fn checks(html: &mut String, checks: &[Check]) {
    if checks.is_empty() {
        return;
    }
    let mut table = String::from("<div class=\"wide\"><table>");
    for check in checks {
        let (class, word) = if check.pass { ("pass", "PASS") } else { ("fail", "FAIL") };
        let _ = write!(
            table,
            "<tr><th>{}</th><td>{}</td><td><span class=\"badge {class}\">{word}</span></td></tr>",
            escape(&check.name),
            escape(&check.detail)
        );
    }
    table.push_str("</table></div>");
    section(html, "Verification", &table);
}

fn rows(html: &mut String, rows: &[(String, String)]) {
    html.push_str("<div class=\"wide\"><table>");
    for (name, value) in rows {
        let _ = write!(html, "<tr><th>{}</th><td>{}</td></tr>", escape(name), escape(value));
    }
    html.push_str("</table></div>");
}

fn operators(page: &Page) -> String {
    let paper: Vec<(String, f64)> = PAPER_OPERATORS.iter().map(|(n, s)| ((*n).to_string(), *s)).collect();
    let mut body = charts::shares(&[
        ("bootstraps as their own class", &page.by_operator),
        ("bootstraps charged to the operator that used the levels", &page.attributed),
        ("the paper: Pythia-70M, 128 tokens, one A100, 93 s", &paper),
    ]);
    body.push_str(&rules(page));
    body.push_str(
        "<p class=\"note\">The paper's first version reports 67 % matrix products and 24 % polynomial \
         approximations, with \
         each operator's bootstraps inside it; its second version counts stand-alone bootstraps apart. Both \
         rules are shown.</p>",
    );
    body
}

/// The paper's two headline shares under both rules of accounting.
fn rules(page: &Page) -> String {
    let share = |list: &[(String, f64)], names: &[&str]| {
        let total: f64 = list.iter().map(|(_, s)| s).sum();
        let part: f64 = list.iter().filter(|(name, _)| names.contains(&name.as_str())).map(|(_, s)| s).sum();
        if total > 0.0 { 100.0 * part / total } else { 0.0 }
    };
    let matmul = ["plaintext matmul", "ciphertext matmul"];
    let functions = ["PowerSoftmax", "activation + norm"];
    let mut html = String::from(
        "<div class=\"wide\"><table><tr><th>share of the time</th><th>bootstraps apart</th><th>bootstraps \
         charged</th><th>the paper</th></tr>",
    );
    for (what, names, paper) in
        [("matrix products", matmul, 67), ("polynomial approximations", functions, 24)]
    {
        let _ = write!(
            html,
            "<tr><th>{what}</th><td>{:.0} %</td><td>{:.0} %</td><td>{paper} %</td></tr>",
            share(&page.by_operator, &names),
            share(&page.attributed, &names)
        );
    }
    html.push_str("</table></div>");
    html
}

fn primitives(page: &Page) -> String {
    let paper: Vec<(String, f64)> = PAPER_PRIMITIVES.iter().map(|(n, s)| ((*n).to_string(), *s)).collect();
    // What takes less than two in a hundred is one part.
    let total: f64 = page.by_primitive.iter().map(|(_, s)| s).sum();
    let (mut large, small): (Vec<_>, Vec<_>) =
        page.by_primitive.iter().cloned().partition(|(name, s)| *s >= 0.02 * total && name != "other");
    large.push(("other".into(), small.iter().map(|(_, s)| s).sum()));
    charts::shares(&[("this run", &large), ("the paper", &paper)])
}

fn operations(ops: &[OpRow]) -> String {
    let mut html = String::from(
        "<details><summary>show the table</summary><div \
         class=\"wide\"><table><tr><th>layer</th><th>operation</th><th>class</th>\
         <th>start, s</th><th>time, s</th><th>level</th><th>log2 scale</th><th>bits predicted</th><th>bits \
         measured</th></tr>",
    );
    let bits = |b: Option<f64>| b.map_or_else(|| "–".to_string(), |b| format!("{b:.1}"));
    for op in ops {
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.2}</td><td>{:.3}</td><td>{} → \
             {}</td><td>{:.2}</td><td>{}</td><td>{}</td></tr>",
            escape(&op.layer),
            escape(&op.name),
            escape(&op.class),
            op.start_s,
            op.seconds,
            op.level_in,
            op.level_out,
            op.log_scale,
            bits(op.predicted_bits),
            bits(op.measured_bits)
        );
    }
    html.push_str("</table></div></details>");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Page {
        let op = |i: usize, class: &str| OpRow {
            layer: format!("block {}", i / 6),
            name: format!("op {i} <x>"),
            class: class.into(),
            start_s: i as f64,
            seconds: 0.9,
            level_in: 13 - i % 12,
            level_out: 12 - i % 12,
            log_scale: 40.0,
            memory: 4.0,
            predicted_bits: Some(20.0),
            measured_bits: Some(21.0),
        };
        Page {
            title: "stories & more".into(),
            subtitle: "encrypted machine".into(),
            prompt: "Once <b>".into(),
            answer: "upon".into(),
            facts: vec![("seconds".into(), "42".into())],
            checks: vec![Check { name: "top-1".into(), detail: "same".into(), pass: true }],
            ops: (0..12).map(|i| op(i, if i % 3 == 0 { "bootstrap" } else { "plaintext matmul" })).collect(),
            by_operator: vec![("bootstrap".into(), 3.6), ("plaintext matmul".into(), 7.2)],
            attributed: vec![("plaintext matmul".into(), 10.8)],
            by_primitive: vec![("rotation".into(), 10.8)],
            cards: vec![Card {
                title: "Cryptographic card".into(),
                rows: vec![("N".into(), "65536".into())],
            }],
        }
    }

    #[test]
    fn page_is_self_contained_and_escaped() {
        let html = render(&sample());
        assert!(html.contains("stories &amp; more") && html.contains("Once &lt;b&gt;"));
        assert!(!html.contains("http"), "the page must not reach the network");
        assert!(!html.contains("<script"));
        assert!(html.contains("badge pass") && !html.contains("badge fail\">FAIL"));
    }

    #[test]
    fn failing_check_fails_the_page() {
        let mut page = sample();
        page.checks.push(Check { name: "mse".into(), detail: "too big".into(), pass: false });
        assert!(render(&page).contains("<span class=\"badge fail\">FAIL</span></h1>"));
    }

    #[test]
    fn every_operation_is_drawn_once_in_the_timeline() {
        let page = sample();
        assert_eq!(charts::timeline(&page.ops).matches("<title>").count(), page.ops.len());
    }
}
