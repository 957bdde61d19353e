//! What `[pair]` says, what its errors say, and that nobody is told the key.

use vm_config::{Arbiter, Card, Config, HostAddress, HostName, Key, Paging, PciAddress};

const KEY: &str = "00112233445566778899aAbBcCdDeEfF0123456789abcdef0123456789abcdef";

/// The least that is a pair, with a network device of the guest. Its last table is `[pair.arbiter]`.
fn least() -> String {
    format!(
        "[vm]\nname = \"web\"\nmemory = \"64M\"\n[boot]\nkernel = \"vmlinuz\"\n[[network]]\nmac = \"02:00:00:00:00:01\"\n\
         [pair]\nkey = \"{KEY}\"\n\
         [pair.a]\nlog-address = \"10.77.0.1/24\"\n[pair.b]\nlog-address = \"10.77.0.2/24\"\n\
         [pair.arbiter]\nkind = \"lock-server\"\naddress = \"10.77.0.9:5409\"\n"
    )
}

/// The least with a text replaced, which must be in it.
fn with(old: &str, new: &str) -> String {
    let text = least();
    assert!(text.contains(old), "{old:?}");
    text.replacen(old, new, 1)
}

/// The least with lines in one of its tables.
fn more(table: &str, lines: &str) -> String {
    with(&format!("[{table}]\n"), &format!("[{table}]\n{lines}\n"))
}

#[test]
fn the_least_pair_has_sensible_defaults() {
    let pair = Config::parse(&least()).expect("a configuration").pair.expect("a pair");
    assert_eq!((pair.name.as_str(), pair.first), ("web", HostName::A));
    assert_eq!((pair.timeout, pair.heartbeat, pair.stall, pair.lag), (300, 50, 3_000, 100));
    assert_eq!((pair.paging, pair.checkpoint, pair.beat_port), (Paging::Strict, 0, 5_408));
    for (name, last) in [(HostName::A, 1), (HostName::B, 2)] {
        let host = pair.host(name);
        assert_eq!((host.log_card, host.log_port, host.guest_address), (Card::Index(1), 5_407, None));
        assert_eq!(host.log_address, HostAddress { ip: [10, 77, 0, last], prefix: 24 });
    }
    assert_eq!(pair.arbiter, Arbiter::LockServer { ip: [10, 77, 0, 9], port: 5_409 });
    let mut key = [0; 32];
    key[..16].copy_from_slice(&0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128.to_be_bytes());
    key[16..].copy_from_slice(&0x0123_4567_89ab_cdef_0123_4567_89ab_cdef_u128.to_be_bytes());
    assert_eq!(pair.key, Key(key));
}

#[test]
fn everything_that_can_be_said_arrives() {
    let text = more(
        "pair",
        "name = \"other\"\nfirst = \"b\"\ntimeout = 100\nheartbeat = 10\nstall = 100\nlag = 7\npaging = \"fast\"\n\
         checkpoint = 0\nbeat-port = 9",
    );
    let text = text.replace(
        "[pair.b]\n",
        "log-card = \"00:05.0\"\nlog-port = 1\nguest-address = \"10.0.0.251/16\"\n[pair.b]\nlog-card = 3\nlog-port = 2\n\
         guest-address = \"10.0.0.252/16\"\n",
    );
    let config = Config::parse(&text).expect("a configuration");
    let pair = config.pair.as_ref().expect("a pair");
    assert_eq!((pair.name.as_str(), pair.first), ("other", HostName::B));
    assert_eq!((pair.timeout, pair.heartbeat, pair.stall, pair.lag), (100, 10, 100, 7));
    assert_eq!((pair.paging, pair.checkpoint, pair.beat_port), (Paging::Fast, 0, 9));
    let [a, b] = pair.hosts;
    assert_eq!((a.log_card, a.log_port), (Card::Pci(PciAddress { bus: 0, device: 5, function: 0 }), 1));
    assert_eq!((b.log_card, b.log_port), (Card::Index(3), 2));
    let guest = |last| Some(HostAddress { ip: [10, 0, 0, last], prefix: 16 });
    assert_eq!((a.guest_address, b.guest_address), (guest(251), guest(252)));
    assert_eq!(Config::parse(&config.text()).as_ref(), Ok(&config));
}

#[test]
fn a_short_timeout_takes_the_other_times_with_it() {
    let pair = |lines| Config::parse(&more("pair", lines)).expect("a configuration").pair.expect("a pair");
    assert_eq!((pair("timeout = 20").heartbeat, pair("timeout = 60").heartbeat), (10, 30));
    assert_eq!((pair("timeout = 60000").stall, pair("timeout = 60000").heartbeat), (60_000, 50));
}

/// A change to the least pair, and what its error says.
fn messages() -> Vec<(String, &'static str)> {
    let mut all = vec![
        (
            with(&format!("key = \"{KEY}\"\n"), ""),
            "pair.key: missing; write, for example, `key = \"<what `openssl rand",
        ),
        (
            with("[pair.a]\nlog-address = \"10.77.0.1/24\"\n", ""),
            "pair.a.log-address: missing; write, for example",
        ),
        (
            with("kind = \"lock-server\"\n", ""),
            "pair.arbiter.kind: missing; write, for example, `kind = \"lock-server\"`",
        ),
        (
            with("\"lock-server\"", "\"coin\""),
            "pair.arbiter.kind: `coin` is not \"lock-server\", the one kind",
        ),
        (
            with("address = \"10.77.0.9:5409\"\n", ""),
            "pair.arbiter.address: missing; write, for example, `address =",
        ),
        (
            with("10.77.0.9:5409", "10.77.0.9"),
            "pair.arbiter.address: `10.77.0.9` is not an IPv4 address of its own in",
        ),
        (
            with("10.77.0.9:", "10.77.1.9:"),
            "`10.77.1.9:5409` is not an IPv4 address of its own in the network",
        ),
        (with("10.77.0.9:", "10.77.0.2:"), "`10.77.0.2:5409` is not an IPv4 address of its own"),
        (with("10.77.0.9:", "10.77.0.255:"), "`10.77.0.255:5409` is not an IPv4 address of its own"),
        (
            with("10.77.0.2/24", "10.77.0.1/24"),
            "pair.b.log-address: `10.77.0.1/24` is not another address than host a's",
        ),
        (
            with("10.77.0.2/24", "10.77.0.2/16"),
            "pair.b.log-address: `10.77.0.2/16` is not another address than host a's",
        ),
        (
            with("10.77.0.2/24", "10.78.0.2/24"),
            "pair.b.log-address: `10.78.0.2/24` is not another address than host a's",
        ),
        (
            with("[pair]\n", "[record]\naddress = '10.77.0.1/24'\npeer = '10.77.0.2:5'\n[pair]\n"),
            "line 11, column 2: pair: cannot stand beside `record`; keep one",
        ),
        (with("[pair.arbiter]", "[pair.c]\n[pair.arbiter]"), "pair.c: unknown key; did you mean"),
    ];
    for (lines, part) in [
        ("name = 'a b'", "pair.name: `a b` is not a name of 1 to 64"),
        ("first = 'c'", "pair.first: `c` is not \"a\" or \"b\": the host that is the primary"),
        ("timeout = 19", "pair.timeout: `19` is not milliseconds of silence, from 20 to 60000"),
        ("timeout = 60001", "`60001` is not milliseconds of silence"),
        (
            "heartbeat = 151",
            "pair.heartbeat: `151` is not milliseconds between two heartbeats, from 5 to half",
        ),
        ("heartbeat = 4", "`4` is not milliseconds between two heartbeats"),
        ("stall = 299", "pair.stall: `299` is not milliseconds without progress, from `timeout`"),
        ("lag = 0", "pair.lag: `0` is not milliseconds that the backup may be behind"),
        ("paging = 'no'", "pair.paging: `no` is not \"strict\" or \"fast\""),
        ("checkpoint = 3600001", "pair.checkpoint: `3600001` is not milliseconds between two checkpoints"),
        ("beat-port = 0", "pair.beat-port: `0` is not a UDP port from 1 to 65535"),
        ("time-out = 5", "pair.time-out: unknown key; did you mean `timeout`?"),
    ] {
        all.push((more("pair", lines), part));
    }
    for (lines, part) in [
        ("log-card = 'none'", "pair.b.log-card: `none` is not a card of the host: its number"),
        ("log-port = 65536", "pair.b.log-port: `65536` is not a TCP port"),
        (
            "guest-address = '10.0.0.2/24'",
            "pair.a.guest-address: missing; write, for example, `guest-address =",
        ),
        (
            "guest-address = '10.77.0.5/24'",
            "pair.b.guest-address: `10.77.0.5/24` is not in another network than",
        ),
        (
            "log-card = 0\nguest-address = '10.1.0.5/24'",
            "pair.b.guest-address: `10.1.0.5/24` is not of use: `log-card` is the card",
        ),
        ("guest-address = '10.1.0.5/8'", "pair.b.guest-address: `10.1.0.5/8` is not in another network than"),
        ("card = 0", "pair.b.card: unknown key; known here: log-card, log-address"),
    ] {
        all.push((more("pair.b", lines), part));
    }
    all
}

#[test]
fn errors_say_where_which_key_and_what_would_be_right() {
    let wrong = messages().into_iter().filter_map(|(text, part)| {
        let said = Config::parse(&text).expect_err(&text).to_string();
        (!said.contains(part)).then(|| format!("says:     {said}\nexpected: {part}\n"))
    });
    assert_eq!(wrong.collect::<String>(), "");
}

#[test]
fn the_log_s_card_is_the_guest_s_where_somebody_says_so() {
    let config = Config::parse(&more("pair.b", "log-card = 0")).expect("a configuration");
    let pair = config.pair.as_ref().expect("a pair");
    assert_eq!(pair.hosts.map(|host| host.log_card), [Card::Index(1), Card::Index(0)]);
    assert_eq!(Config::parse(&config.text()).as_ref(), Ok(&config));
    // Heartbeats on the guest's first card, the log on its second: two paths.
    let text = with("[pair]\n", "[[network]]\nmac = '02:00:00:00:00:02'\n[pair]\n");
    let text = text.replace("[pair.a]\n", "[pair.a]\nlog-card = 1\nguest-address = '10.0.0.251/24'\n");
    let text = text.replace("[pair.b]\n", "[pair.b]\nlog-card = 1\nguest-address = '10.0.0.252/24'\n");
    let pair = Config::parse(&text).expect("a configuration").pair.expect("a pair");
    assert!(pair.hosts.iter().all(|host| host.log_card == Card::Index(1) && host.guest_address.is_some()));
    // Not by oversight.
    let text = with("[pair]\n", "[[network]]\nmac = '02:00:00:00:00:02'\ncard = 2\n[pair]\n");
    let said = Config::parse(&text).expect_err("index 2 is taken").to_string();
    assert!(
        said.contains("pair.a.log-card: missing; write, for example, `log-card = \"00:04.0\"`"),
        "{said}"
    );
}

#[test]
fn heartbeats_on_the_guest_s_card_need_one() {
    let text = more("pair.a", "guest-address = '10.0.0.251/24'").replace("[pair]\n", "[pair]\nfirst = 'a'\n");
    let text =
        text.replace("mac = \"02:00:00:00:00:01\"\n", "mac = \"02:00:00:00:00:01\"\ncard = \"none\"\n");
    let said = Config::parse(&text).expect_err("no card").to_string();
    assert!(
        said.contains("pair.a.guest-address: `10.0.0.251/24` is not of use: no [[network]] has a card"),
        "{said}"
    );
}

#[test]
fn nobody_is_told_the_key() {
    let config = Config::parse(&least()).expect("a configuration");
    let digits = &KEY[..8];
    let (shown, debug) = (config.to_string(), format!("{config:?}"));
    assert!(config.text().to_ascii_lowercase().contains(&KEY.to_ascii_lowercase()));
    assert!(shown.contains("key = \"...\"") && !shown.contains(digits), "{shown}");
    // As bytes, too: 0x11, 0x22, 0x33.
    assert!(debug.contains("Key(..)") && !debug.contains("17, 34, 51"), "{debug}");
    for wrong in [&KEY[1..], &format!("{KEY}0"), &KEY.replace('f', "g"), &KEY.replace('0', "é")[..65]] {
        let said = Config::parse(&with(KEY, wrong)).expect_err("no key").to_string();
        assert!(
            said.contains("pair.key: this (a secret, not shown here) is not 64 hexadecimal digits"),
            "{said}"
        );
        assert!(!said.contains(&wrong[4..12]), "{said}");
    }
    // Nor when the value is of another type or the text breaks off.
    for text in [with(&format!("\"{KEY}\""), "112233445566"), with(&format!("{KEY}\""), KEY)] {
        let said = Config::parse(&text).expect_err("no configuration").to_string();
        assert!(!said.contains("2233"), "{said}");
    }
}
