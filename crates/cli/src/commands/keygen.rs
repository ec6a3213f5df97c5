//! `cipherlm keygen`: a secret key, and the evaluation keys that a server needs for one plan.

use crate::console::{out_json, say};
use crate::library::Library;
use crate::options::{BatchOption, IndexOption, InputOption, PlanSource, ProfileOption, Wanted, tokens};
use crate::outputs::{Outputs, hold};
use crate::party::{client_folder, description};
use crate::prices::PricesOption;
use crate::progress::Console;
use crate::setup::Setup;
use crate::system::{available_memory, free_disk, gib, threads};
use anyhow::{Context, bail};
use cipherlm_circuits::bootstrap::Profile;
use cipherlm_ckks::MemoryBill;
use cipherlm_files::{Existing, printable, shown};
use cipherlm_infer::{
    Circuits, ClientFolder, ClientSide, CostModel, KeyFolder, KeyOrder, SECRET_FILE, SERVER_FOLDER,
    own_profile,
};
use clap::Args;
use serde_json::json;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Args)]
pub(crate) struct Options {
    /// A new folder: `secret.key` in it stays with you, the folder `server` in it goes to the
    /// server.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    source: PlanSource,
    #[command(flatten)]
    index: IndexOption,
    #[command(flatten)]
    input: InputOption,
    #[command(flatten)]
    batch: BatchOption,
    /// Longest prompt, in tokens.
    #[arg(long, default_value = "32", value_parser = tokens(), conflicts_with = "plan")]
    length: usize,
    /// Go on after an interruption: keep the secret key, make the evaluation keys that are missing.
    #[arg(long)]
    resume: bool,
    /// Only print what the keys will take.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    profile: ProfileOption,
    #[command(flatten)]
    prices: PricesOption,
}

/// Makes the keys, after saying what they will take.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let secret_file = options.out.join(SECRET_FILE);
    if !options.dry_run {
        Outputs::default().folder("--out", &options.out, Existing::Replace)?;
        if secret_file.exists() && !options.resume {
            bail!(
                "{} is already there and will not be replaced: pass --resume to complete its evaluation \
                 keys, or choose another --out",
                shown(&secret_file)
            );
        }
    }
    let work = Work::new(options)?;
    if !options.dry_run && secret_file.exists() {
        ensure_same_plan(&work, &options.out)?;
    }
    let mut console = Console::new(!as_json);
    console.line(&work.summary);
    let bill = work.order.bill(work.circuits.params())?;
    let (stored, resident) = (bill.stored_bytes, bill.resident_bytes);
    if options.dry_run {
        if as_json {
            out_json(&json!({"stored_bytes": stored, "resident_bytes": resident, "plan": work.order.plan}));
        }
        return Ok(true);
    }
    let clock = Instant::now();
    let keys = make(options, &work, stored, &console)?;
    let seconds = clock.elapsed().as_secs_f64();
    let server = options.out.join(SERVER_FOLDER);
    if as_json {
        out_json(&json!({
            "secret_key": shown(&secret_file),
            "evaluation_keys": shown(&server),
            "key_id": keys.key_id,
            "plan": keys.plan,
            "prompts": keys.prompts,
            "keys": keys.keys,
            "stored_bytes": keys.stored_bytes,
            "security_bits": keys.security_bits,
            "seconds": seconds,
        }));
    } else {
        say!("secret key        {}  (keep it; whoever has it can read everything)", shown(&secret_file));
        say!(
            "evaluation keys   {}  ({} keys, {:.2} GiB; for the server)",
            shown(&server),
            keys.keys,
            gib(stored)
        );
        say!("made in           {seconds:.1} s");
        let prompts = if keys.prompts > 1 { "--prompts FILE" } else { "--prompt -" };
        say!("next              cipherlm encrypt --keys {} {prompts} --out prompt.bin", shown(&options.out));
    }
    Ok(true)
}

/// What keys to make, from a model or from a client plan.
struct Work {
    circuits: Circuits,
    order: KeyOrder,
    profile: Profile,
    summary: String,
    /// Bytes that making them takes.
    memory: u64,
}

impl Work {
    fn new(options: &Options) -> anyhow::Result<Self> {
        if let Some(folder) = options.source.plan() {
            let (ring, named) = options.profile.given();
            if named {
                bail!("--plan names its profile: leave out --profile and --tolerance");
            }
            if options.input.given() {
                bail!("--plan says how prompts come in: leave out --refresh-input");
            }
            if options.batch.given() {
                bail!("--plan says how many prompts a pass takes: leave out --prompts");
            }
            return Self::of_plan(&client_folder(folder)?, ring, options.index.library()?);
        }
        let model = options.input.put_on(options.index.put_on(options.source.load()?)?);
        let model = options.batch.put_on(model)?;
        let wanted = options.profile.wanted()?;
        // A named profile needs no prices to be chosen, and whoever runs the plan has others.
        let cost = match wanted {
            Wanted::This(_) => CostModel::default(),
            Wanted::Cheapest(_) => options.prices.table(wanted.insecure())?,
        };
        let setup = Setup::on(model, options.length, &wanted, &cost)?;
        let order = KeyOrder::of(&setup.circuits, &setup.plan)?;
        let bill = order.bill(setup.circuits.params())?;
        let memory = making(&bill) + setup.plan.memory(0).weights;
        let summary = setup.summary();
        Ok(Self { order, summary, memory, circuits: setup.circuits, profile: setup.recipe.profile })
    }

    /// A plan of another party: it cannot lead into a small ring.
    fn of_plan(
        folder: &ClientFolder,
        insecure_ring: Option<u32>,
        library: Option<Library>,
    ) -> anyhow::Result<Self> {
        let plan = &folder.plan;
        let profile = own_profile(&plan.profile, plan.log_degree)?;
        let asked = insecure_ring.is_some();
        if profile.insecure != asked || insecure_ring.is_some_and(|ring| ring != profile.log_degree) {
            bail!(
                "--plan: the plan is for N = 2^{}, profile {}, {}: pass --insecure-ring with that \
                 number to agree, or another --plan",
                profile.log_degree,
                profile.name,
                if profile.insecure { "which protects nothing" } else { "which is secure" }
            );
        }
        let circuits = Circuits::new(&profile)?;
        let side = ClientSide::new(plan.clone(), &profile, &folder.embedding)?;
        library.map_or(Ok(()), |library| library.check_count(side.documents()))?;
        let (order, params) = (side.key_order()?, circuits.params());
        let bill = order.bill(params)?;
        let name = printable(&plan.model.name);
        let summary = format!(
            "model       {name}, from the client plan {}\n\
             parameters  N = 2^{}, log QP {:.0}, {:.0}-bit security, profile {}\n\
             keys        {:.2} GiB stored, {:.2} GiB in the server's memory",
            plan.plan,
            params.log_degree(),
            params.log_qp(),
            params.security().bits,
            profile.name,
            gib(bill.stored_bytes),
            gib(bill.resident_bytes),
        );
        Ok(Self { memory: making(&bill), summary, order, circuits, profile })
    }
}

/// The secret key, new or the one that is there, and the evaluation keys that are missing.
fn make(options: &Options, work: &Work, stored: u64, console: &Console) -> anyhow::Result<KeyFolder> {
    let (secret_file, server) = (options.out.join(SECRET_FILE), options.out.join(SERVER_FOLDER));
    check_room(work.memory, &options.out, stored.saturating_sub(folder_bytes(&server)))?;
    if !secret_file.exists() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&options.out)
            .with_context(|| format!("--out: creating {}", shown(&options.out)))?;
    }
    // One process at a time makes keys here.
    let _lock = hold("--out", &options.out)?;
    let told = |done| {
        console.stage(&format!("evaluation keys, {:.2} of {:.2} GiB", gib(done), gib(stored)), done, stored);
        true
    };
    let keys = KeyFolder::make(&options.out, &work.circuits, &work.order, work.profile.name, told)?;
    console.done();
    Ok(keys)
}

/// Keys that are there are completed for the plan that they were made for, and for no other.
fn ensure_same_plan(work: &Work, out: &Path) -> anyhow::Result<()> {
    let keys = description(out)?;
    if keys.plan == work.order.plan {
        return Ok(());
    }
    bail!(
        "the keys in {} are for model {} at {} tokens and {} prompt(s) a pass (plan {}), not for this plan \
         {}: use the same options, or another --out",
        shown(out),
        keys.model,
        keys.tokens,
        keys.prompts,
        keys.plan,
        work.order.plan
    )
}

/// Memory of key generation: each thread holds a key in the making, at six times its stored size.
fn making(bill: &MemoryBill) -> u64 {
    6 * bill.stored_bytes / bill.keys.max(1) as u64 * threads() as u64
}

/// Refuses before any work when disk or memory are short.
fn check_room(need: u64, out: &Path, bytes: u64) -> anyhow::Result<()> {
    if let Some(free) = free_disk(out).filter(|free| *free < bytes) {
        bail!(
            "the keys take {:.2} GiB on disk and {:.2} GiB are free at {}: free some, or choose another \
             --out or a shorter --length",
            gib(bytes),
            gib(free),
            shown(out)
        );
    }
    // One key a thread is in memory at a time, with its intermediate values.
    if let Some(have) = available_memory().filter(|have| *have < need) {
        bail!(
            "making keys takes {:.2} GiB of memory and {:.2} GiB are free: close other programs",
            gib(need),
            gib(have)
        );
    }
    Ok(())
}

/// Bytes of the files in a folder; nothing if there is none.
fn folder_bytes(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|e| e.metadata().ok()).filter(std::fs::Metadata::is_file).map(|m| m.len()).sum()
}
