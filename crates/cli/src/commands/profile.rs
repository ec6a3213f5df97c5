//! `cipherlm profile`: where the time of one encrypted forward pass goes.

use crate::console::Console;
use crate::flags;
use crate::outcome::Outcome;
use crate::session::Session;
use crate::setup::{self, Setup};

/// Where the time of one forward pass goes, on text of the wanted length.
pub(crate) fn run(args: &flags::Profile, as_json: bool) -> anyhow::Result<bool> {
    let loaded = crate::model::load(args.model.as_deref())?;
    let prompt = setup::sample(&loaded, args.length)?;
    let text = loaded.tokenizer.decode(&prompt).unwrap_or_default();
    let setup = Setup::new(loaded, Some(args.length), prompt.len(), args.profile.chain())?;
    let mut progress = Console::new(!as_json);
    progress.line(&setup.summary());
    setup.price_memory()?;
    let session = Session::start(&setup, args.precision, &mut progress)?;
    let mut outcome = Outcome::new(&setup, &text, session.seconds_keygen);
    session.forward(&prompt, &mut outcome, &mut progress)?;
    super::demo::finish(&outcome, as_json, args.json_file.as_deref(), args.html.as_deref())
}
