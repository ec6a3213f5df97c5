//! A fleet of workers in simulated time. Which key a worker turns to is decided by the code that
//! workers run; everything else is a price.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use crate::schedule::{View, Waiting};

/// Time between two looks of an idle worker at what waits, in seconds.
const LOOK: f64 = 5.0;
/// Share of the jobs that a run begins with and does not count.
const WARM: f64 = 0.2;

/// Workers, those who ask them, and what things take.
#[derive(Debug, Clone, PartialEq)]
pub struct Fleet {
    /// Workers.
    pub workers: usize,
    /// Clients, each with keys of its own.
    pub clients: usize,
    /// Clients' keys that one worker has in memory.
    pub held: usize,
    /// Seconds of a job, keys in memory.
    pub job: f64,
    /// Seconds of loading a client's keys from a folder that is fast enough.
    pub load: f64,
    /// Seconds of a worker between two jobs: hearing of one, asking, saying its end.
    pub between: f64,
    /// Seconds between an answer and the client's next prompt.
    pub think: f64,
    /// Bytes of a client's keys in files.
    pub key_bytes: f64,
    /// Bytes of a prompt and its answer.
    pub message_bytes: f64,
    /// Bytes a second that the shared folder gives, to all workers together.
    pub folder: f64,
    /// Bytes a second on the server's line.
    pub line: f64,
    /// Seconds that the server's records are busy with a job.
    pub record: f64,
    /// Jobs to simulate.
    pub jobs: usize,
    /// Whether all jobs are asked for at the start, by the clients in turn; otherwise a client asks
    /// again when it has been answered.
    pub at_once: bool,
}

/// What a fleet does.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Seconds from the first prompt to the last answer.
    pub seconds: f64,
    /// Jobs an hour, once the fleet is warm.
    pub jobs_per_hour: f64,
    /// Share of the workers' time that they compute, and that they load keys.
    pub running: f64,
    /// See `running`.
    pub loading: f64,
    /// Seconds from prompt to answer: half of all are below, and 19 of 20.
    pub latency: [f64; 2],
    /// Loads of keys a job.
    pub loads: f64,
    /// Share of the time that the shared folder, the server's line and its records are busy.
    pub busy: [f64; 3],
    /// What would have to grow for more.
    pub bottleneck: &'static str,
}

/// Something that does one thing at a time.
#[derive(Default)]
struct Station {
    free: f64,
    busy: f64,
}

impl Station {
    /// When work that comes at `at` and takes `time` is done.
    fn serve(&mut self, at: f64, time: f64) -> f64 {
        self.free = self.free.max(at) + time;
        self.busy += time;
        self.free
    }
}

/// Seconds as a number with an order: nanoseconds.
fn ticks(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    Ask(usize),
    Free(usize),
    /// A worker has lingered long enough.
    Turn(usize),
    Look,
}

#[derive(Default, Clone)]
struct Worker {
    /// Clients whose keys it has, the last one loaded at the end.
    resident: Vec<usize>,
    since: f64,
    idle: f64,
    /// The client whose job it has, and when that was asked for.
    job: Option<(usize, f64)>,
    /// Whether it is to look again when it has lingered.
    turns: bool,
}

/// A simulation on its way.
struct Run<'a> {
    fleet: &'a Fleet,
    now: f64,
    heap: BinaryHeap<Reverse<(u64, u64, Happens)>>,
    number: u64,
    /// When each waiting job was asked for, by client.
    waiting: BTreeMap<usize, VecDeque<f64>>,
    workers: Vec<Worker>,
    /// How many workers have a client's keys.
    known: BTreeMap<usize, usize>,
    elsewhere: BTreeSet<usize>,
    folder: Station,
    line: Station,
    records: Station,
    started: usize,
    /// Ends of jobs: when, and how long after they were asked for.
    ends: Vec<(f64, f64)>,
    running: f64,
    loading: f64,
    loads: usize,
    looks: bool,
}

impl Fleet {
    /// Runs the fleet until all jobs are done.
    pub fn simulate(&self) -> Outcome {
        let mut run = Run {
            fleet: self,
            now: 0.0,
            heap: BinaryHeap::new(),
            number: 0,
            waiting: BTreeMap::new(),
            workers: vec![Worker::default(); self.workers.max(1)],
            known: BTreeMap::new(),
            elsewhere: BTreeSet::new(),
            folder: Station::default(),
            line: Station::default(),
            records: Station::default(),
            started: 0,
            ends: vec![],
            running: 0.0,
            loading: 0.0,
            loads: 0,
            looks: false,
        };
        let clients = self.clients.max(1);
        let first = if self.at_once { self.jobs } else { clients };
        for job in 0..first {
            // Clients that go on and on do not all begin at the same moment.
            let at = if self.at_once { 0.0 } else { self.think * job as f64 / clients as f64 };
            run.at(at, Happens::Ask(job % clients));
        }
        while let Some(Reverse((at, _, happens))) = run.heap.pop() {
            run.now = at as f64 / 1e9;
            run.happens(happens);
            if !self.at_once && run.ends.len() >= self.jobs {
                break;
            }
        }
        run.outcome()
    }
}

impl Run<'_> {
    fn at(&mut self, seconds: f64, happens: Happens) {
        self.number += 1;
        self.heap.push(Reverse((ticks(seconds), self.number, happens)));
    }

    fn happens(&mut self, happens: Happens) {
        match happens {
            Happens::Ask(client) => {
                self.waiting.entry(client).or_default().push_back(self.now);
                // Whoever has the keys hears it like the others, and is the one that turns to them.
                let holder =
                    self.workers.iter().position(|w| w.job.is_none() && w.resident.contains(&client));
                match holder {
                    Some(worker) => self.choose(worker),
                    None => self.look(),
                }
            }
            Happens::Free(worker) => {
                self.answer(worker);
                self.workers[worker].idle = self.now;
                self.choose(worker);
            }
            Happens::Turn(worker) => {
                self.workers[worker].turns = false;
                if self.workers[worker].job.is_none() {
                    self.choose(worker);
                }
            }
            Happens::Look => {
                self.looks = false;
                self.look();
            }
        }
        if !self.looks && !self.waiting.is_empty() && self.workers.iter().any(|worker| worker.job.is_none()) {
            self.looks = true;
            self.at(self.now + LOOK, Happens::Look);
        }
    }

    /// All idle workers look at what waits.
    fn look(&mut self) {
        for worker in 0..self.workers.len() {
            if self.waiting.is_empty() {
                return;
            }
            if self.workers[worker].job.is_none() {
                self.choose(worker);
            }
        }
    }

    fn choose(&mut self, at: usize) {
        let worker = &self.workers[at];
        let view = View {
            resident: &worker.resident,
            stayed: self.now - worker.since,
            idle: self.now - worker.idle,
            elsewhere: &self.elsewhere,
            job: self.fleet.job,
        };
        let lingers = view.lingers();
        if lingers > 0.0 && !worker.resident.iter().any(|client| self.waiting.contains_key(client)) {
            // It would leave all that waits.
            if !worker.turns {
                self.workers[at].turns = true;
                self.at(self.now + lingers + 1e-6, Happens::Turn(at));
            }
            return;
        }
        let oldest = |asked: &VecDeque<f64>| self.now - asked.front().copied().unwrap_or(self.now);
        let waiting: Vec<Waiting<usize>> =
            self.waiting.iter().map(|(&key, asked)| Waiting { key, oldest: oldest(asked) }).collect();
        let Some(client) = view.first(&waiting).map(|place| waiting[place].key) else { return };
        let Some(queue) = self.waiting.get_mut(&client) else { return };
        let Some(asked) = queue.pop_front() else { return };
        if queue.is_empty() {
            self.waiting.remove(&client);
        }
        self.start(at, client, asked);
    }

    fn start(&mut self, at: usize, client: usize, asked: f64) {
        let fleet = self.fleet;
        let mut time = self.records.serve(self.now + fleet.between, fleet.record);
        if !self.workers[at].resident.contains(&client) {
            let read = self.folder.serve(time, fleet.key_bytes / fleet.folder);
            let loaded = read.max(time + fleet.load);
            self.loading += loaded - time;
            self.loads += 1;
            time = loaded;
            self.reside(at, client);
            self.workers[at].since = loaded;
        }
        time += fleet.job;
        self.running += fleet.job;
        self.started += 1;
        self.workers[at].job = Some((client, asked));
        self.at(time, Happens::Free(at));
    }

    /// The end of a worker's job: the client gets its answer, and goes on.
    fn answer(&mut self, at: usize) {
        let Some((client, asked)) = self.workers[at].job.take() else { return };
        let answered = self.line.serve(self.now, self.fleet.message_bytes / self.fleet.line);
        self.ends.push((answered, answered - asked));
        if !self.fleet.at_once {
            self.at(answered + self.fleet.think, Happens::Ask(client));
        }
    }

    /// A worker takes a client's keys into its memory, in place of those it has had longest.
    fn reside(&mut self, at: usize, client: usize) {
        let worker = &mut self.workers[at];
        worker.resident.push(client);
        *self.known.entry(client).or_default() += 1;
        self.elsewhere.insert(client);
        if worker.resident.len() > self.fleet.held.max(1) {
            let gone = worker.resident.remove(0);
            let left = self.known.entry(gone).or_default();
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.known.remove(&gone);
                self.elsewhere.remove(&gone);
            }
        }
    }

    fn outcome(mut self) -> Outcome {
        let fleet = self.fleet;
        self.ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        let seconds = self.ends.last().map_or(0.0, |end| end.0);
        let cold = if fleet.at_once { 0 } else { (WARM * self.ends.len() as f64) as usize };
        let counted = &self.ends[cold..];
        let began = if cold == 0 { 0.0 } else { self.ends[cold - 1].0 };
        let mut latency: Vec<f64> = counted.iter().map(|end| end.1).collect();
        latency.sort_by(f64::total_cmp);
        let quantile = |share: f64| {
            latency.get((share * latency.len() as f64) as usize).or(latency.last()).copied().unwrap_or(0.0)
        };
        let all = seconds.max(1e-9);
        let time = fleet.workers.max(1) as f64 * all;
        let busy = [&self.folder, &self.line, &self.records].map(|station| (station.busy / all).min(1.0));
        let (running, loading) = ((self.running / time).min(1.0), (self.loading / time).min(1.0));
        let names = ["the shared folder", "the server's line", "the server's records"];
        let station = busy.iter().zip(names).max_by(|a, b| a.0.total_cmp(b.0));
        let bottleneck = match station {
            Some((share, name)) if *share > 0.9 => name,
            _ if loading > running => "the memory for keys",
            _ if running + loading < 0.7 => "the clients",
            _ => "the workers",
        };
        Outcome {
            seconds,
            jobs_per_hour: 3600.0 * counted.len() as f64 / (seconds - began).max(1e-9),
            running,
            loading,
            latency: [quantile(0.5), quantile(0.95)],
            loads: self.loads as f64 / self.started.max(1) as f64,
            busy,
            bottleneck,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(workers: usize, clients: usize, jobs: usize) -> Fleet {
        Fleet {
            workers,
            clients,
            held: 1,
            job: 24.0,
            load: 12.0,
            between: 0.02,
            think: 0.0,
            key_bytes: 3e9,
            message_bytes: 13e6,
            folder: 10e9,
            line: 1.25e9,
            record: 0.006,
            jobs,
            at_once: false,
        }
    }

    #[test]
    fn two_workers_with_two_keys_are_twice_one() {
        let burst = |workers| Fleet { at_once: true, ..fleet(workers, 2, 8) }.simulate();
        let (one, two) = (burst(1), burst(2));
        assert!((two.loads, two.running > 0.88) == (0.25, true), "{two:?}");
        // One loads each key once; two do so side by side.
        assert!((one.loads * 8.0).round() == 2.0, "{one:?}");
        assert!((one.seconds / two.seconds - 2.0).abs() < 0.02, "{one:?} {two:?}");
    }

    #[test]
    fn a_client_that_goes_on_keeps_its_worker_and_many_share_it_fairly() {
        let alone = fleet(4, 4, 400).simulate();
        assert!(alone.loads < 0.02 && alone.bottleneck == "the workers", "{alone:?}");
        let ideal = 4.0 * 3600.0 / 24.0;
        assert!((alone.jobs_per_hour / ideal - 1.0).abs() < 0.02, "{alone:?}");
        // Ten clients a worker, which each go on for a while when it is their turn.
        let crowd = fleet(4, 40, 400).simulate();
        assert!(crowd.jobs_per_hour > 0.8 * ideal && crowd.loads < 0.3, "{crowd:?}");
        // Those who are slower to go on than a worker waits: every job is another key.
        let slow = Fleet { think: 10.0, ..fleet(4, 40, 400) }.simulate();
        assert!(slow.jobs_per_hour > 0.6 * ideal && slow.loads > 0.9, "{slow:?}");
        let few = fleet(100, 10, 400).simulate();
        assert_eq!(few.bottleneck, "the clients", "{few:?}");
    }

    #[test]
    fn what_all_share_bounds_a_large_fleet() {
        let narrow = Fleet { line: 12.5e6, ..fleet(200, 200, 2000) }.simulate();
        assert_eq!(narrow.bottleneck, "the server's line", "{narrow:?}");
        assert!((narrow.jobs_per_hour / 3600.0 - 12.5 / 13.0).abs() < 0.1, "{narrow:?}");
        let slow = Fleet { folder: 0.1e9, think: 10.0, ..fleet(50, 500, 1000) }.simulate();
        assert_eq!(slow.bottleneck, "the shared folder", "{slow:?}");
    }
}
