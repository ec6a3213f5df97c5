//! Finds and loads models, and cuts text into what they take.

use crate::exit::usage;
use anyhow::{Context, bail};
use cipherlm_files::{printable, shown};
use cipherlm_infer::{Index, meaning, prompt_tokens};
use cipherlm_model::{Kind, Mode, Model, Positions, Runner, TOKENIZER_FILE, Tokenizer};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest text that is read, in bytes.
const TEXT_BYTES: u64 = 1 << 30;

/// A model with its tokenizer.
pub(crate) struct Loaded {
    pub(crate) model: Model,
    pub(crate) tokenizer: Tokenizer,
    /// Where it came from.
    pub(crate) folder: PathBuf,
    /// Documents that its vectors are compared with under encryption.
    pub(crate) index: Option<Arc<Index>>,
    /// Whether its prompts come in at the lowest level.
    pub(crate) refresh_input: bool,
    /// Prompts that go through one pass.
    pub(crate) prompts: usize,
}

/// A text cut into windows of tokens.
pub(crate) struct Windows {
    pub(crate) windows: Vec<Vec<u32>>,
    /// Tokens of the whole text, or of as much of it as was read.
    pub(crate) tokens: usize,
}

/// Loads the model in `dir`, or the shipped one.
pub(crate) fn load(dir: Option<&Path>) -> anyhow::Result<Loaded> {
    let dir = match dir {
        Some(dir) if dir.exists() => dir.to_path_buf(),
        // A bare name means a folder below `models/`.
        Some(name) => match find(name) {
            Some(dir) => dir,
            None if name == Path::new(cipherlm_stories::NAME) => return shipped(),
            None => bail!(
                "--model: there is no model folder {}: give a folder, or a name below models/",
                shown(name)
            ),
        },
        None => return shipped(),
    };
    let model = cipherlm_model::difference::load(&dir)
        .with_context(|| format!("loading the model in {}", shown(&dir)))?;
    let file = dir.join(TOKENIZER_FILE);
    let tokenizer = Tokenizer::load(&file).with_context(|| format!("loading {}", shown(&file)))?;
    tokenizer.check_shape(model.shape()).with_context(|| format!("loading {}", shown(&dir)))?;
    Ok(Loaded { model, tokenizer, folder: dir, index: None, refresh_input: false, prompts: 1 })
}

/// The model that this program carries.
fn shipped() -> anyhow::Result<Loaded> {
    use cipherlm_stories::{DESCRIPTION, NAME, TOKENIZER, WEIGHTS};
    let model = Model::from_parts(DESCRIPTION, WEIGHTS).context("the shipped model")?;
    let tokenizer = Tokenizer::from_json(TOKENIZER).context("the shipped tokenizer")?;
    let folder = PathBuf::from(NAME);
    Ok(Loaded { model, tokenizer, folder, index: None, refresh_input: false, prompts: 1 })
}

/// `models/<name>` in the working folder or above it, or beside this program's sources.
fn find(name: &Path) -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    here.ancestors()
        .map(Path::to_path_buf)
        .chain([built])
        .map(|dir| dir.join("models").join(name))
        .find(|d| d.is_dir())
}

impl Loaded {
    /// The model behind public text.
    pub(crate) fn behind(self, text: &str) -> anyhow::Result<Self> {
        let prefix = self.tokenizer.encode(text)?;
        if text.is_empty() || prefix.is_empty() {
            bail!("it is empty: a public prefix has some text");
        }
        Ok(Self { model: self.model.with_prefix(prefix)?, ..self })
    }

    /// The prompt's tokens, refused when there is none or when `more` of them have no room after
    /// it.
    pub(crate) fn tokens(&self, prompt: &str, more: usize) -> anyhow::Result<Vec<u32>> {
        let prefix = &self.model.spec().prefix;
        let tokens = prompt_tokens(&self.tokenizer, prefix, self.model.shape().context, prompt)?;
        let context = self.room();
        let room = context - tokens.len();
        if more > room {
            return Err(usage(format!(
                "--tokens {more}: the model takes {context} tokens and the prompt has {}: ask for at most \
                 {room}, or shorten the prompt",
                tokens.len()
            )));
        }
        Ok(tokens)
    }

    /// Refuses a classifier where text is to be continued.
    pub(crate) fn ensure_continues(&self, command: &str) -> anyhow::Result<()> {
        if self.model.shape().kind != Kind::Decoder {
            let instead = match self.model.shape().kind {
                Kind::Embedder { .. } => "makes vectors of text: use `embed`, `index` and `search`",
                _ => "classifies text: use `encrypt`, `run` and `decrypt`, which read its class",
            };
            bail!("`{command}` continues text, and {} {instead}", self.name());
        }
        Ok(())
    }

    /// Positions for a text: what the model's public tokens leave of its context.
    pub(crate) fn room(&self) -> usize {
        self.model.shape().context.saturating_sub(self.model.spec().prefix.len())
    }

    /// The model's name on one line: it comes from a file.
    pub(crate) fn name(&self) -> Cow<'_, str> {
        printable(&self.model.spec().name)
    }

    /// How many results of the model mean something: classes, or tokens that the tokenizer knows.
    pub(crate) fn choices(&self) -> usize {
        match self.model.shape().kind {
            Kind::Decoder => self.tokenizer.vocab(),
            Kind::Encoder { classes } => classes,
            Kind::Embedder { .. } => self.model.shape().d_model,
        }
    }

    /// The position whose results answer a prompt: the last one, or the first of a classifier.
    pub(crate) fn answer_position(&self, tokens: usize) -> usize {
        if self.model.shape().kind == Kind::Decoder { tokens.saturating_sub(1) } else { 0 }
    }

    /// What the model answers to a prompt in the clear: logits of the next token, or of the
    /// classes.
    pub(crate) fn reference(&self, mode: Mode, tokens: &[u32]) -> anyhow::Result<Vec<f64>> {
        let mut runner = Runner::new(&self.model, mode)?;
        let mut row = match self.model.shape().kind {
            Kind::Decoder => runner
                .forward(tokens, Positions::Last)?
                .pop()
                .context("the model in the clear returned no logits")?,
            Kind::Encoder { .. } => runner.classify(tokens, None)?,
            Kind::Embedder { .. } => runner.sentence(tokens, None)?,
        };
        row.truncate(self.choices());
        Ok(row)
    }

    /// The text that tokens add to a prompt.
    pub(crate) fn continuation(&self, prompt: &[u32], tokens: &[u32]) -> anyhow::Result<String> {
        Ok(self.tokenizer.decode_continuation(prompt, tokens)?)
    }

    /// What a result stands for: a token's text, or the number of a class.
    pub(crate) fn answer(&self, choices: &[u32]) -> String {
        meaning(self.model.shape().kind, &self.tokenizer, choices)
    }

    /// The first `count` windows of a text, one after the other.
    pub(crate) fn first_windows(&self, file: &Path, length: usize, count: usize) -> anyhow::Result<Windows> {
        self.check_window(length)?;
        let text = cipherlm_files::read_text(file, TEXT_BYTES)?;
        // Tokens are rarely longer than 16 bytes, so this prefix is enough.
        let end = text.floor_char_boundary(length.saturating_mul(count).saturating_mul(16));
        let tokens = self.tokenizer.encode(&text[..end])?;
        let windows: Vec<Vec<u32>> = tokens.chunks_exact(length).take(count).map(<[u32]>::to_vec).collect();
        if windows.is_empty() {
            bail!(
                "{} has {} tokens and one window takes {length}: use a longer text",
                shown(file),
                tokens.len()
            );
        }
        Ok(Windows { windows, tokens: tokens.len() })
    }

    /// `count` windows spread evenly over a whole text, never overlapping, as training picks them.
    pub(crate) fn spread_windows(&self, file: &Path, length: usize, count: usize) -> anyhow::Result<Windows> {
        let out = self.windows_at_most(file, length, count)?;
        let fitting = out.windows.len();
        if fitting < count {
            bail!(
                "{} has {} tokens, which make {fitting} windows of {length}, and --windows asks for \
                 {count}: use a longer text, or say with --windows that less will do",
                shown(file),
                out.tokens
            );
        }
        Ok(out)
    }

    /// As [`Loaded::spread_windows`], fewer where the text is short; none is refused.
    pub(crate) fn windows_at_most(
        &self,
        file: &Path,
        length: usize,
        at_most: usize,
    ) -> anyhow::Result<Windows> {
        self.check_window(length)?;
        let text = cipherlm_files::read_text(file, TEXT_BYTES)?;
        let tokens = self.tokenizer.encode(&text)?;
        let fitting = tokens.len().saturating_sub(1) / length;
        let count = fitting.min(at_most);
        if count == 0 {
            bail!(
                "{} has {} tokens and one window takes {length}: use a longer text",
                shown(file),
                tokens.len()
            );
        }
        let window = |i: usize| tokens[i * fitting / count * length..][..length].to_vec();
        Ok(Windows { windows: (0..count).map(window).collect(), tokens: tokens.len() })
    }

    fn check_window(&self, length: usize) -> anyhow::Result<()> {
        let context = self.room();
        if length < 2 || length > context {
            return Err(usage(format!("a window has 2 to {context} tokens, not {length}")));
        }
        Ok(())
    }
}
