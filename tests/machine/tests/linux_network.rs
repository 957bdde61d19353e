//! The guest's network over the host's card: computers outside talk to the guest at its own address, and every byte is right.

use machine_tests::{Host, Outside, Payload, host, load_output, number, payload, runs_to_its_end};
use xtask::switch::cable::CableConfig;
use xtask::switch::station::content::{file_sha256, zeros_sha256};
use xtask::switch::station::{Client, Expect, StationConfig, Task};
use xtask::switch::time::Ppm;

/// Size of the transfers, MiB.
const SIZE: u32 = 4;

/// A host on a network with one station.
fn networked(cable: CableConfig, clients: Vec<Client>) -> Host {
    let station = StationConfig { clients, ..StationConfig::default() };
    let outside =
        Outside::Stations { seed: 1, cable, stations: vec![("world".into(), station)], capture: None };
    Host { outside, ..host() }
}

fn run(words: &str, host: &Host) -> (machine_tests::Outcome, String) {
    let mut description = payload(Payload::Cloud, words);
    description.networks = 1;
    runs_to_its_end(&description, host)
}

#[test]
fn files_arrive_whole_in_both_directions() {
    let (outcome, world) =
        run(&format!("wl=netrx,nettx n={SIZE}"), &networked(CableConfig::default(), vec![]));
    let wanted = format!("{}  -", file_sha256(SIZE));
    assert!(load_output(&outcome, "netrx").contains(&wanted.as_str()), "{}", outcome.last_words());
    assert!(load_output(&outcome, "nettx").contains(&"txdone=0"), "{}", outcome.last_words());
    assert_eq!(number(&world, "served-bytes"), f64::from(SIZE << 20), "{world}");
    assert_eq!(number(&world, "sunk-bytes"), f64::from(SIZE << 20), "{world}");
    assert!(world.contains(&zeros_sha256(u64::from(SIZE) << 20)), "{world}");
}

#[test]
fn a_network_that_loses_frames_loses_no_bytes() {
    let cable = CableConfig { loss: Ppm(3_000), duplicate: Ppm(3_000), ..CableConfig::default() };
    let (outcome, world) = run("wl=netrx n=1", &networked(cable, vec![]));
    let wanted = format!("{}  -", file_sha256(1));
    assert!(load_output(&outcome, "netrx").contains(&wanted.as_str()), "{world}\n{}", outcome.last_words());
}

#[test]
fn the_guest_serves_computers_outside() {
    let client = |task| Client { at: 0, to: [10, 0, 2, 15], task };
    let fetch = |path: &str, expect| client(Task::Fetch { port: 80, path: path.into(), expect });
    let clients = vec![
        fetch("/index.html", Expect::Text("ok\n".into())),
        fetch("/file8", Expect::Sha256(zeros_sha256(8 << 20))),
        client(Task::Echo { port: 7, rounds: 20 }),
        client(Task::Touch { port: 9 }),
    ];
    let (_, world) = run("wl=serve quit=1", &networked(CableConfig::default(), clients));
    for (key, wanted) in [("fetched", 2.0), ("right", 2.0), ("wrong", 0.0), ("echoed", 20.0), ("left", 0.0)] {
        assert_eq!(number(&world, key), wanted, "{key}: {world}");
    }
}
