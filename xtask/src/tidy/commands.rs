//! Finds the commands that our documents tell a reader to type. The `cipherlm` crate's tests use
//! this file too, each side with its parser.

/// A command in a document.
pub(crate) struct Command {
    /// Line number, from 1.
    pub(crate) line: usize,
    /// Its arguments, without the program.
    pub(crate) args: Vec<String>,
}

/// The commands in a Markdown text that start with `program`, in code spans and code blocks. Words
/// in capitals stand for values and are replaced by `1`; a command with an ellipsis or with
/// alternatives is a description and is left out.
pub(crate) fn find(markdown: &str, program: &str) -> Vec<Command> {
    let mut found = Vec::new();
    let mut block = false;
    for (number, line) in markdown.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            block = !block;
            continue;
        }
        let spans: Vec<&str> = if block { vec![line] } else { line.split('`').skip(1).step_by(2).collect() };
        for span in spans {
            let span = span.trim().trim_start_matches("$ ");
            let Some(rest) = span.strip_prefix(program).filter(|rest| rest.starts_with(' ')) else {
                continue;
            };
            if ["...", "…", "[", "|", "<"].iter().any(|mark| rest.replace("\"...\"", "").contains(mark)) {
                continue;
            }
            let args = words(rest).into_iter().map(|word| if placeholder(&word) { "1".into() } else { word });
            found.push(Command { line: number + 1, args: args.collect() });
        }
    }
    found
}

fn placeholder(word: &str) -> bool {
    word.chars().any(|c| c.is_ascii_uppercase()) && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

/// Splits as a shell would, up to a comment or the next command.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#' | ';' | '&' | '>') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn commands_are_found_where_a_reader_would_type_them() {
        let text = "Use `tool go --text \"a b\" --n N`, not tool stay.\n```sh\ntool run file.txt   # a \
                    comment\nother run\n```\n`tool [x]` `toolbox y`";
        let found = find(text, "tool");
        let args: Vec<Vec<&str>> =
            found.iter().map(|c| c.args.iter().map(String::as_str).collect()).collect();
        assert_eq!(args, [vec!["go", "--text", "a b", "--n", "1"], vec!["run", "file.txt"]]);
        assert_eq!(found.iter().map(|c| c.line).collect::<Vec<_>>(), [1, 3]);
    }
}
