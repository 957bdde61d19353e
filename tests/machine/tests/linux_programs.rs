//! Programs of Debian's packages in a guest: servers that computers outside talk to, and a stress test.

use machine_tests::{Host, Outside, Payload, host, load_output, number, payload, runs_to_its_end};
use xtask::switch::cable::CableConfig;
use xtask::switch::station::content::zeros_sha256;
use xtask::switch::station::{Client, Expect, StationConfig, Task};

#[test]
fn nginx_serves_computers_outside() {
    let client = |task| Client { at: 0, to: [10, 0, 2, 15], task };
    let fetch = |path: &str, expect| client(Task::Fetch { port: 80, path: path.into(), expect });
    let mut clients = vec![fetch("/file8", Expect::Sha256(zeros_sha256(8 << 20)))];
    clients.extend((0..20).map(|_| fetch("/index.html", Expect::Text("ok\n".into()))));
    clients.push(client(Task::Touch { port: 9 }));
    let station = StationConfig { clients, ..StationConfig::default() };
    let stations = vec![("world".into(), station)];
    let outside = Outside::Stations { seed: 1, cable: CableConfig::default(), stations, capture: None };
    let mut description = payload(Payload::Nginx, "wl=nginx");
    description.networks = 1;
    let (_, world) = runs_to_its_end(&description, &Host { outside, ..host() });
    assert_eq!((number(&world, "right"), number(&world, "left")), (21.0, 0.0), "{world}");
}

#[test]
fn redis_answers_its_own_benchmark() {
    let mut description = payload(Payload::Redis, "wl=redis self=1 n=500");
    description.networks = 1;
    let (outcome, _) = runs_to_its_end(&description, &host());
    let lines = load_output(&outcome, "redis");
    for name in ["SET:", "GET:", "INCR:", "LPUSH:"] {
        assert!(
            lines.iter().any(|line| line.contains(name) && line.contains("requests per second")),
            "{lines:?}"
        );
    }
    let done = lines.iter().find_map(|line| line.strip_prefix("total_commands_processed:")).unwrap_or("0");
    assert!(done.parse::<u32>().unwrap() >= 2_000, "{done}");
}

#[test]
fn stress_ng_finds_nothing_wrong_in_a_minute() {
    let (outcome, _) = runs_to_its_end(&payload(Payload::Stress, "wl=stress n=60"), &host());
    let lines = load_output(&outcome, "stress");
    assert!(lines.contains(&"stress=0"), "{lines:?}");
    assert!(
        !lines.iter().any(|line| line.contains("fail:") || line.contains("verification failed")),
        "{lines:?}"
    );
}
