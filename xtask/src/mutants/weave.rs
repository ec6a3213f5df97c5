//! All mutants of a file in one text, each behind a switch that a test run turns on.
//!
//! One build carries them all. `a + b` becomes `(if on(7) { (a) - (b) } else { a + b })`, a body
//! starts with `if on(8) { return Default::default(); }`, an arm that may go gets a guard. Only the
//! last branch holds further switches, since one mutant is on at a time.

use super::list::{Mutant, Place};
use anyhow::Context;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// Name of the module that holds the switch in a crate under test.
pub(super) const SWITCH: &str = "cipherlm_mutants_switch";

/// The genre of an edit that somebody named.
pub(super) const NAMED: &str = "Named";

/// A text with its mutants.
pub(super) struct Woven {
    pub(super) text: String,
    /// Where each mutant stands in the text, and the place around it that it changes.
    pub(super) places: Vec<(u32, Range<usize>, Range<usize>)>,
    /// Mutants that no switch can hold.
    pub(super) left_out: Vec<u32>,
}

/// Something that mutants change: an expression, or a point where text is put in.
#[derive(Default)]
struct Site {
    /// Mutant and the expression instead.
    alternatives: Vec<(u32, String)>,
    /// Mutant and the text put in before the site.
    inserts: Vec<(u32, String)>,
}

/// Weaves the mutants into the source.
pub(super) fn weave(source: &str, mutants: &[&Mutant]) -> anyhow::Result<Woven> {
    let file = syn::parse_file(source).context("the source does not parse")?;
    let lines = line_starts(source);
    let mut opaque = Opaque(Vec::new());
    opaque.visit_file(&file);
    let mut finder = Finder {
        source,
        wanted: HashMap::new(),
        named: Vec::new(),
        done: HashSet::new(),
        sites: BTreeMap::new(),
    };
    for mutant in mutants {
        let range = offset(source, &lines, mutant.span.start)..offset(source, &lines, mutant.span.end);
        match mutant.genre.as_str() {
            // All returns of such a function have one type.
            "FnValue" if opaque.0.iter().any(|body| body.contains(&range.start)) => {}
            "FnValue" => {
                let text =
                    format!("if crate::{SWITCH}::on({}) {{ return {}; }} ", mutant.id, mutant.replacement);
                finder.insert(range.start, mutant.id, text);
            }
            "MatchArmGuard" => finder.instead(range, mutant.id, mutant.replacement.clone()),
            NAMED => finder.named.push((range, (*mutant).clone())),
            _ => finder.wanted.entry((range.start, range.end)).or_default().push((*mutant).clone()),
        }
    }
    finder.visit_file(&file);
    let left_out = mutants.iter().map(|m| m.id).filter(|id| !finder.done.contains(id)).collect();
    let mut writer = Writer {
        source,
        sites: finder
            .sites
            .into_iter()
            .map(|((start, key), site)| (start..end_of(start, key), site))
            .collect(),
        next: 0,
        at: 0,
        out: String::new(),
        places: Vec::new(),
    };
    writer.copy(source.len());
    Ok(Woven { text: writer.out, places: writer.places, left_out })
}

/// The end of a site, from its key in the order of sites.
fn end_of(start: usize, key: usize) -> usize {
    if key == 0 { start } else { usize::MAX - key }
}

fn line_starts(source: &str) -> Vec<usize> {
    std::iter::once(0).chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

fn offset(source: &str, lines: &[usize], place: Place) -> usize {
    let start = lines.get(place.line - 1).copied().unwrap_or(source.len());
    let rest = &source[start..];
    start + rest.char_indices().nth(place.column - 1).map_or(rest.len(), |(at, _)| at)
}

/// Finds the operands of operators, the literals around fields, the arrows of arms.
struct Finder<'a> {
    source: &'a str,
    wanted: HashMap<(usize, usize), Vec<Mutant>>,
    /// Edits of any text inside a function.
    named: Vec<(Range<usize>, Mutant)>,
    done: HashSet<u32>,
    /// By start, then points before expressions and long expressions before short ones.
    sites: BTreeMap<(usize, usize), Site>,
}

impl Finder<'_> {
    fn instead(&mut self, range: Range<usize>, id: u32, text: String) {
        self.done.insert(id);
        // A longer expression sorts first.
        let site = self.sites.entry((range.start, usize::MAX - range.end)).or_default();
        site.alternatives.push((id, text));
    }

    fn insert(&mut self, at: usize, id: u32, text: String) {
        self.done.insert(id);
        self.sites.entry((at, 0)).or_default().inserts.push((id, text));
    }

    /// A function with an edit somewhere in its body has that body twice.
    fn function(&mut self, block: &syn::Block) {
        let braces = block.brace_token.span;
        let body = braces.open().byte_range().end..braces.close().byte_range().start;
        let inside = |range: &Range<usize>| body.start <= range.start && range.end <= body.end;
        let named = std::mem::take(&mut self.named);
        for (range, mutant) in named {
            if !inside(&range) {
                self.named.push((range, mutant));
                continue;
            }
            let (before, after) = (&self.source[body.start..range.start], &self.source[range.end..body.end]);
            self.instead(body.clone(), mutant.id, format!("{before}{}{after}", mutant.replacement));
        }
    }

    fn take(&mut self, node: &impl Spanned) -> Vec<Mutant> {
        let range = node.span().byte_range();
        self.wanted.remove(&(range.start, range.end)).unwrap_or_default()
    }

    fn text(&self, node: &impl Spanned) -> &str {
        &self.source[node.span().byte_range()]
    }
}

/// Bodies of functions that return some type of a trait, without a name.
struct Opaque(Vec<Range<usize>>);

impl Opaque {
    fn look(&mut self, signature: &syn::Signature, block: &syn::Block) {
        struct Found(bool);
        impl Visit<'_> for Found {
            fn visit_type_impl_trait(&mut self, _: &syn::TypeImplTrait) {
                self.0 = true;
            }
        }
        let mut found = Found(false);
        found.visit_return_type(&signature.output);
        if found.0 {
            self.0.push(block.span().byte_range());
        }
    }
}

impl<'ast> Visit<'ast> for Opaque {
    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        self.look(&node.sig, &node.block);
        visit::visit_item_fn(self, node);
    }

    fn visit_impl_item_fn(&mut self, node: &'ast syn::ImplItemFn) {
        self.look(&node.sig, &node.block);
        visit::visit_impl_item_fn(self, node);
    }
}

/// Whether the operands bind names with `let`: such a chain must stay one.
fn binds(expression: &syn::Expr) -> bool {
    match expression {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(b) => binds(&b.left) || binds(&b.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        self.function(&node.block);
        visit::visit_item_fn(self, node);
    }

    fn visit_impl_item_fn(&mut self, node: &'ast syn::ImplItemFn) {
        self.function(&node.block);
        visit::visit_impl_item_fn(self, node);
    }

    fn visit_expr_binary(&mut self, node: &'ast syn::ExprBinary) {
        for mutant in self.take(&node.op) {
            if binds(&node.left) || binds(&node.right) {
                continue;
            }
            let (left, right) = (self.text(&node.left), self.text(&node.right));
            let text = match &node.op {
                op if self.text(op).ends_with('=') && assigns(op) => {
                    format!("{left} {} {right}", mutant.replacement)
                }
                _ => format!("({left}) {} ({right})", mutant.replacement),
            };
            self.instead(node.span().byte_range(), mutant.id, text);
        }
        visit::visit_expr_binary(self, node);
    }

    fn visit_expr_unary(&mut self, node: &'ast syn::ExprUnary) {
        for mutant in self.take(&node.op) {
            let text = format!("{}{}", mutant.replacement, self.text(&node.expr));
            self.instead(node.span().byte_range(), mutant.id, text);
        }
        visit::visit_expr_unary(self, node);
    }

    fn visit_expr_struct(&mut self, node: &'ast syn::ExprStruct) {
        for field in &node.fields {
            for mutant in self.take(field) {
                let (whole, gone) = (node.span().byte_range(), field.span().byte_range());
                let rest = self.source[gone.end..whole.end].trim_start();
                let rest = rest.strip_prefix(',').unwrap_or(rest);
                let text = format!("{}{rest}", &self.source[whole.start..gone.start]);
                self.instead(whole, mutant.id, text);
            }
        }
        visit::visit_expr_struct(self, node);
    }

    fn visit_arm(&mut self, node: &'ast syn::Arm) {
        for mutant in self.take(node) {
            match &node.pat {
                syn::Pat::Guard(guard) => {
                    self.instead(guard.guard.span().byte_range(), mutant.id, "false".into());
                }
                _ => {
                    let at = node.fat_arrow_token.span().byte_range().start;
                    self.insert(at, mutant.id, format!("if !crate::{SWITCH}::on({}) ", mutant.id));
                }
            }
        }
        visit::visit_arm(self, node);
    }
}

fn assigns(op: &syn::BinOp) -> bool {
    !matches!(op, syn::BinOp::Eq(_) | syn::BinOp::Ne(_) | syn::BinOp::Le(_) | syn::BinOp::Ge(_))
}

/// Copies the source, and writes the sites where they stand.
struct Writer<'a> {
    source: &'a str,
    sites: Vec<(Range<usize>, Site)>,
    next: usize,
    /// How much of the source is written.
    at: usize,
    out: String,
    places: Vec<(u32, Range<usize>, Range<usize>)>,
}

impl Writer<'_> {
    /// Copies up to `end`.
    fn copy(&mut self, end: usize) {
        while let Some((range, _)) = self.sites.get(self.next).filter(|(range, _)| range.start < end) {
            let range = range.clone();
            let site = std::mem::take(&mut self.sites[self.next].1);
            self.next += 1;
            self.out += &self.source[self.at..range.start];
            self.at = range.start;
            for (id, text) in &site.inserts {
                let from = self.out.len();
                self.out += text;
                self.places.push((*id, from..self.out.len(), from..self.out.len()));
            }
            if site.alternatives.is_empty() {
                continue;
            }
            let (from, first) = (self.out.len(), self.places.len());
            self.out.push('(');
            for (id, text) in &site.alternatives {
                let from = self.out.len();
                self.out += &format!("if crate::{SWITCH}::on({id}) {{ {text} }} else ");
                self.places.push((*id, from..self.out.len(), from..from));
            }
            self.out += "{ ";
            self.copy(range.end);
            self.out += " })";
            let whole = from..self.out.len();
            let mine: HashSet<u32> = site.alternatives.iter().map(|(id, _)| *id).collect();
            let places = self.places[first..].iter_mut().filter(|(id, ..)| mine.contains(id));
            places.for_each(|place| place.2 = whole.clone());
        }
        self.out += &self.source[self.at..end];
        self.at = end;
    }
}

/// The switch of a crate: the number in `CIPHERLM_MUTANT` is on. With `CIPHERLM_MUTANT_TRACE`
/// nothing is on, and the numbers that were asked for are written to that file.
pub(super) fn switch(count: usize) -> String {
    format!(
        r#"
#[allow(missing_docs, clippy::all)]
pub(crate) mod {SWITCH} {{
    use std::io::Write;
    use std::sync::atomic::{{AtomicBool, AtomicU32, Ordering::Relaxed}};
    static STATE: AtomicU32 = AtomicU32::new(u32::MAX);
    static SEEN: [AtomicBool; {count}] = [const {{ AtomicBool::new(false) }}; {count}];
    const TRACE: u32 = u32::MAX - 1;
    #[inline]
    pub(crate) fn on(number: u32) -> bool {{
        match STATE.load(Relaxed) {{
            0 => false,
            state if state < TRACE => state == number,
            _ => slow(number),
        }}
    }}
    #[cold]
    fn slow(number: u32) -> bool {{
        if SEEN[number as usize].load(Relaxed) {{
            return false;
        }}
        let trace = std::env::var_os("CIPHERLM_MUTANT_TRACE");
        let state = match &trace {{
            Some(_) => TRACE,
            None => std::env::var("CIPHERLM_MUTANT").ok().and_then(|n| n.parse().ok()).unwrap_or(0),
        }};
        STATE.store(state, Relaxed);
        if let Some(path) = trace && !SEEN[number as usize].swap(true, Relaxed) {{
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            let _ = file.and_then(|mut file| file.write_all(format!("{{number}}\n").as_bytes()));
        }}
        state == number
    }}
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutants::list::Span;

    fn mutant(id: u32, genre: &str, source: &str, part: &str, replacement: &str) -> Mutant {
        let at = source.find(part).unwrap();
        Mutant {
            id,
            name: String::new(),
            package: String::new(),
            file: String::new(),
            genre: genre.into(),
            span: Span {
                start: Place { line: 1, column: at + 1 },
                end: Place { line: 1, column: at + 1 + part.len() },
            },
            replacement: replacement.into(),
        }
    }

    fn woven(source: &str, mutants: &[Mutant]) -> String {
        let woven = weave(source, &mutants.iter().collect::<Vec<_>>()).unwrap();
        assert!(woven.left_out.is_empty());
        syn::parse_file(&woven.text).unwrap();
        woven.text.replace(&format!("crate::{SWITCH}::"), "")
    }

    #[test]
    fn an_operator_inside_another_is_switched_in_the_last_branch_only() {
        let source = "fn f() -> u8 { a + b * c }";
        let list =
            [mutant(1, "BinaryOperator", source, "+", "-"), mutant(2, "BinaryOperator", source, "*", "/")];
        let want = "fn f() -> u8 { (if on(1) { (a) - (b * c) } else { \
                    a + (if on(2) { (b) / (c) } else { b * c }) }) }";
        assert_eq!(woven(source, &list), want);
    }

    #[test]
    fn a_body_returns_before_its_first_expression() {
        let source = "fn f() -> bool { a && !b }";
        let list = [
            mutant(1, "FnValue", source, "a && !b", "true"),
            mutant(2, "BinaryOperator", source, "&&", "||"),
            mutant(3, "UnaryOperator", source, "!", ""),
        ];
        let want = "fn f() -> bool { if on(1) { return true; } (if on(2) { (a) || (!b) } else { \
                    a && (if on(3) { b } else { !b }) }) }";
        assert_eq!(woven(source, &list), want);
    }

    #[test]
    fn a_named_edit_has_a_body_of_its_own() {
        let source = "fn f() -> u8 { g(); a + b }";
        let list = [mutant(1, NAMED, source, "g();", "h();"), mutant(2, "BinaryOperator", source, "+", "-")];
        let want = "fn f() -> u8 {(if on(1) {  h(); a + b  } else {  \
                    g(); (if on(2) { (a) - (b) } else { a + b })  })}";
        assert_eq!(woven(source, &list), want);
    }

    #[test]
    fn an_arm_that_may_go_gets_a_guard() {
        let source = "fn f(x: u8) -> u8 { match x { 1 => 2, _ => 3 } }";
        let list = [mutant(1, "MatchArm", source, "1 => 2,", "")];
        assert_eq!(woven(source, &list), "fn f(x: u8) -> u8 { match x { 1 if !on(1) => 2, _ => 3 } }");
    }

    #[test]
    fn a_body_of_a_type_without_a_name_returns_nothing_else() {
        let source = "fn f() -> impl Iterator<Item = u8> { g() }";
        let list = [mutant(1, "FnValue", source, "g()", "::std::iter::empty()")];
        let woven = weave(source, &list.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!((woven.left_out, woven.text.as_str()), (vec![1], source));
    }

    #[test]
    fn a_chain_that_binds_stays_a_chain() {
        let source = "fn f() { if let Some(x) = a && x > 1 { g() } }";
        let list =
            [mutant(1, "BinaryOperator", source, ">", "<"), mutant(2, "BinaryOperator", source, "&&", "||")];
        let woven = weave(source, &list.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(woven.left_out, [2]);
        syn::parse_file(&woven.text).unwrap();
    }
}
