//! Programs of Debian's packages in a guest: servers that computers outside talk to, and a stress test.

use std::net::Ipv4Addr;

use machine_tests::{Host, Outside, Payload, host, load_output, number, payload, runs_to_its_end, test_name};
use xtask::payload::server::{self, Programs};
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

/// Runs a server in the guest, and its client on a plain machine on the host's network; what client and guest say.
fn measured_from_outside(server: &str, guest: Payload, client: &Programs, n: u32) -> (Vec<String>, String) {
    let name = format!("{}.client", test_name());
    let machine = server::client(client, &name, Ipv4Addr::new(10, 0, 2, 15), n)
        .unwrap_or_else(|error| panic!("{error:#}"));
    let cable = CableConfig { latency: 100_000, ..CableConfig::default() };
    let outside = Outside::Machines { seed: 1, cable, machines: vec![machine], capture: None };
    let mut description = payload(guest, &format!("wl={server}"));
    description.networks = 1;
    let vm = description.vm().unwrap_or_else(|error| panic!("{error:#}"));
    let host = Host { outside, ..host() };
    let (outcome, told) = host.run(&vm).unwrap_or_else(|error| panic!("{error:#}"));
    let said: Vec<String> =
        told.iter().filter_map(|line| line.strip_prefix("client: ")).map(String::from).collect();
    assert!(outcome.facts("DONE").next().is_some(), "{}\n{said:#?}", outcome.last_words());
    (said, load_output(&outcome, server).join("\n"))
}

#[test]
fn redis_is_measured_by_its_benchmark_on_another_machine() {
    let (client, guest) = measured_from_outside("redis", Payload::Redis, &server::REDIS_CLIENT, 200);
    for name in ["SET: ", "GET: ", "INCR: "] {
        let line = client.iter().find_map(|line| line.strip_prefix(name));
        let line = line.unwrap_or_else(|| panic!("no {name}in {client:#?}"));
        let rate: f64 = line.split_once(" requests per second").unwrap().0.parse().unwrap();
        // The emulated machines are slow; a request that takes longer than 100 ms waited for a timer.
        assert!(rate > 40.0, "{line}");
    }
    for fact in ["counter=200", "order=right", "value=right"] {
        assert!(client.iter().any(|line| line.starts_with(fact)), "no {fact} in {client:#?}");
    }
    let done = guest.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
    assert!(done.unwrap_or("0").parse::<u32>().unwrap() >= 3 * 200 + 50, "{guest}");
}

#[test]
fn nginx_is_measured_by_wrk_on_another_machine() {
    let (client, _) = measured_from_outside("nginx", Payload::Nginx, &server::NGINX_CLIENT, 2);
    let rate = client.iter().find_map(|line| line.strip_prefix("Requests/sec:"));
    let rate = rate.unwrap_or_else(|| panic!("no rate in {client:#?}"));
    let rate: f64 = rate.split_whitespace().next().unwrap().parse().unwrap();
    assert!(rate > 20.0, "{client:#?}");
    let wrong = client.iter().find(|line| line.starts_with("Socket errors") || line.starts_with("Non-2xx"));
    assert_eq!(wrong, None);
    let file = format!("file8={}", zeros_sha256(8 << 20));
    assert!(client.iter().any(|line| line.starts_with(&file)), "{client:#?}");
}

#[test]
fn stress_ng_finds_nothing_wrong() {
    let (outcome, _) = runs_to_its_end(&payload(Payload::Stress, "wl=stress n=20"), &host());
    let lines = load_output(&outcome, "stress");
    assert!(lines.contains(&"stress=0"), "{lines:?}");
    assert!(
        !lines.iter().any(|line| line.contains("fail:") || line.contains("verification failed")),
        "{lines:?}"
    );
}
