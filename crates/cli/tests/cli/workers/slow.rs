//! What takes minutes, rights or a quiet machine.

use super::*;

/// A place with a line of its own to this machine, where this process may make one.
struct Place {
    name: String,
    line: String,
    /// Address of this machine, from there.
    address: String,
}

impl Place {
    fn new() -> Option<Self> {
        let number = std::process::id() % 60_000;
        let (name, line) = (format!("cipherlm-{number}"), format!("clm{number}"));
        let net = format!("10.77.{}", number % 250);
        let place = Self { name, line, address: format!("{net}.1") };
        let (name, line, peer) = (&place.name, &place.line, format!("{}p", place.line));
        let made = place.ip(&["netns", "add", name])
            && place.ip(&["link", "add", line, "type", "veth", "peer", "name", &peer, "netns", name])
            && place.ip(&["address", "add", &format!("{net}.1/24"), "dev", line])
            && place.ip(&["link", "set", line, "up"])
            && place.ip(&["-n", name, "address", "add", &format!("{net}.2/24"), "dev", &peer])
            && place.ip(&["-n", name, "link", "set", &peer, "up"]);
        if !made {
            println!("skipped: no network namespace may be made here");
        }
        made.then_some(place)
    }

    fn ip(&self, args: &[&str]) -> bool {
        Command::new("ip").args(args).output().is_ok_and(|out| out.status.success())
    }

    /// Cuts the line, or mends it.
    fn cut(&self, cut: bool) {
        assert!(self.ip(&["link", "set", &self.line, if cut { "down" } else { "up" }]));
    }

    /// Makes the line a bad one.
    fn spoil(&self) -> bool {
        let args = ["qdisc", "replace", "dev", &self.line, "root", "netem", "delay", "40ms", "loss", "1%"];
        Command::new("tc").args(args).args(["rate", "20mbit"]).output().is_ok_and(|out| out.status.success())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.ip(&["link", "delete", &self.line]);
        self.ip(&["netns", "delete", &self.name]);
    }
}

#[test]
#[ignore = "a minute of silence, and rights to make a network namespace"]
fn slow_a_line_may_be_cut_for_a_minute_or_be_bad() {
    let Some(place) = Place::new() else { return };
    let Some(mut world) = World::new("place") else { return };
    world.nats[0].more = "0.0.0.0".into();
    world.nats[0].again(false);
    let keys = world.client("keys");
    let samples = [PROMPT, "One day a dog"].map(|text| world.sample(&keys, text));
    let url = format!("nats://{}:{}", place.address, world.nats[0].port);
    world.hire_at(&url, &["ip", "netns", "exec", &place.name], &[]);
    let seconds = world.measure(&samples[0]);
    for (at, minute) in [(0.0, 5.0), (0.3, 60.0), (0.7, 5.0)] {
        world.submit(&samples[0]);
        sleep(at * seconds);
        place.cut(true);
        // Another goes on meanwhile, and ends what the first may have ended too.
        world.hire(&[]);
        world.check(&samples[0]);
        world.submit(&samples[1]);
        world.check(&samples[1]);
        sleep(minute);
        place.cut(false);
        world.workers.pop();
        world.submit(&samples[1]);
        world.check(&samples[1]);
    }
    if !place.spoil() {
        println!("left out: `tc` makes no bad line here");
        return;
    }
    for sample in samples.iter().cycle().take(4) {
        world.submit(sample);
        world.check(sample);
    }
    drop((world, place));
}

#[test]
#[ignore = "a measurement: it prints seconds, on a quiet machine"]
fn slow_eight_jobs_of_two_keys_on_one_worker_and_on_two() {
    let Some(mut world) = World::new("eight") else { return };
    let keys = [world.client("keys1"), world.client("keys2")];
    let texts = [PROMPT, "One day a dog", "Tom saw", "Lily liked"];
    let samples: Vec<Sample> =
        texts.iter().flat_map(|text| [0, 1].map(|key| world.sample(&keys[key], text))).collect();
    for workers in [1, 2, 1, 2] {
        (0..workers).for_each(|_| world.hire(&[]));
        // They hear of each other.
        sleep(1.5);
        let clock = Instant::now();
        samples.iter().for_each(|sample| world.submit(sample));
        samples.iter().for_each(|sample| drop(world.end(sample)));
        println!("{workers} workers of one thread: {:.2} s", clock.elapsed().as_secs_f64());
        samples.iter().for_each(|sample| world.check(sample));
        world.workers.clear();
    }
    for line in world.log("server.log").lines().filter(|line| line.contains("\"what\":\"job\"")) {
        println!("{line}");
    }
}
