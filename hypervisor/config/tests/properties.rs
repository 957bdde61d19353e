//! Whatever the text is, the parser answers; whatever the configuration is, it can be written and read again.

use proptest::prelude::*;
use vm_config::{
    Arbiter, Boot, Card, Clock, Config, Console, Cpu, Disk, HostAddress, HostName, Key, Mac, Medium, Memory,
    Module, Network, Paging, Pair, PairHost, PciAddress, Record, RtcStart, Vm,
};

fn file() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_./ü-]{1,40}"
}

fn command_line() -> impl Strategy<Value = String> {
    // Everything printable, quotes and backslashes included.
    "[ -~äß€]{0,60}"
}

fn mac() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_map(|mut bytes| {
        bytes[0] = bytes[0] & 0xfe | 2;
        Mac(bytes)
    })
}

fn boot() -> impl Strategy<Value = Boot> {
    let module = (file(), command_line()).prop_map(|(file, command_line)| Module { file, command_line });
    let linux =
        (file(), proptest::option::of(file()), command_line()).prop_map(|(kernel, initrd, command_line)| {
            Boot::Kernel { kernel, initrd, command_line, modules: vec![] }
        });
    let multiboot = (file(), command_line(), proptest::collection::vec(module, 0..4)).prop_map(
        |(kernel, command_line, modules)| Boot::Kernel { kernel, initrd: None, command_line, modules },
    );
    let firmware = (file(), 0..2usize).prop_map(|(firmware, disk)| Boot::Firmware { firmware, disk });
    prop_oneof![linux, multiboot, firmware]
}

fn disk() -> impl Strategy<Value = Disk> {
    let medium =
        prop_oneof![file().prop_map(Medium::Image), (1..1u64 << 26).prop_map(|kib| Medium::Blank(kib << 10))];
    (medium, any::<bool>(), proptest::option::of("[ -~]{1,20}"))
        .prop_map(|(medium, read_only, serial)| Disk { medium, read_only, serial })
}

fn network() -> impl Strategy<Value = Network> {
    (mac(), proptest::option::of(card()), any::<bool>()).prop_map(|(mac, card, promiscuous)| Network {
        mac,
        card,
        promiscuous,
    })
}

fn card() -> impl Strategy<Value = Card> {
    let place = (any::<u8>(), 0..32u8, 0..8u8);
    let place = place.prop_map(|(bus, device, function)| Card::Pci(PciAddress { bus, device, function }));
    prop_oneof![place, mac().prop_map(Card::Mac), any::<u8>().prop_map(Card::Index)]
}

/// Two stations of one network, whose addresses are its first and its last.
fn record() -> impl Strategy<Value = Record> {
    let network = (1..=126u8, any::<[u8; 3]>(), 8..=30u8);
    let port = 1..=u16::MAX;
    (card(), network, port, any::<bool>(), 0..=3_600_000u32).prop_map(
        |(card, (a, [b, c, d], prefix), port, strict, checkpoint)| {
            let host = u32::MAX >> prefix;
            let network = u32::from_be_bytes([a, b, c, d]) & !host;
            Record {
                card,
                address: (network | 1).to_be_bytes(),
                prefix,
                peer: ((network | (host - 1)).to_be_bytes(), port),
                paging: if strict { Paging::Strict } else { Paging::Fast },
                checkpoint,
            }
        },
    )
}

/// Two hosts and an arbiter in one network, the heartbeats' other path in another.
fn pair() -> impl Strategy<Value = Pair> {
    let times = (20..=60_000u32, any::<u32>(), any::<u32>(), 1..=60_000u32, 0..=3_600_000u32);
    let words = ("[a-zA-Z0-9._-]{1,64}", any::<[u8; 32]>(), any::<bool>(), any::<bool>());
    let network = (1..=126u8, any::<[u8; 3]>(), 8..=29u8, any::<bool>());
    let ports = (1..=u16::MAX, 1..=u16::MAX, 1..=u16::MAX, 1..=u16::MAX);
    (times, words, network, ports, card(), card()).prop_map(
        |((timeout, beat, stall, lag, checkpoint), (name, key, b, strict), network, ports, one, other)| {
            let (first, [x, y, z], prefix, beats) = network;
            let host = u32::MAX >> prefix;
            let network = u32::from_be_bytes([first, x, y, z]) & !host;
            let at = |number: u32| HostAddress { ip: (network | number).to_be_bytes(), prefix };
            let beats = |ip| beats.then_some(HostAddress { ip: [192, 168, 1, ip], prefix: 30 });
            let host = |log_card, number: u8, log_port| PairHost {
                log_card,
                log_address: at(number.into()),
                log_port,
                guest_address: beats(number),
            };
            Pair {
                name,
                key: Key(key),
                first: if b { HostName::B } else { HostName::A },
                timeout,
                heartbeat: 5 + beat % (timeout / 2 - 4),
                stall: timeout + stall % (3_600_000 - timeout),
                lag,
                paging: if strict { Paging::Strict } else { Paging::Fast },
                checkpoint,
                beat_port: ports.0,
                hosts: [host(one, 1, ports.1), host(other, 2, ports.2)],
                arbiter: Arbiter::LockServer { ip: at(3).ip, port: ports.3 },
            }
        },
    )
}

fn config() -> impl Strategy<Value = Config> {
    let vm = ("[a-zA-Z0-9._-]{1,64}", 2..32768u64, 0..3usize, proptest::option::of(0..1u64 << 63));
    let vm = vm.prop_map(|(name, pages, cpu, seed)| {
        let memory = Memory { bytes: pages << 21 };
        Vm { name, memory, cpu: Cpu::ALL[cpu], seed }
    });
    let networks = proptest::collection::vec(network(), 0..3).prop_filter("addresses differ", |networks| {
        networks.iter().enumerate().all(|(n, a)| networks[..n].iter().all(|b| a.mac != b.mac))
    });
    let console = (any::<bool>(), any::<bool>(), proptest::option::of(1..32u8))
        .prop_map(|(serial, virtio, escape)| Console { serial, virtio, escape });
    let rtc = prop_oneof![Just(RtcStart::Host), (0..4_102_444_800u64).prop_map(RtcStart::Fixed)];
    let clock = (any::<bool>(), proptest::option::of(1..=100_000u64))
        .prop_map(|(follows_host, rate)| Clock { follows_host, rate });
    let disks = proptest::collection::vec(disk(), 2..5);
    // Who keeps the log: nobody, a file, another host.
    let log = prop_oneof![
        Just((None, None)),
        record().prop_map(|record| (Some(record), None)),
        pair().prop_map(|pair| (None, Some(pair)))
    ];
    let all = (vm, boot(), disks, networks, console, rtc, clock, log);
    let all = all.prop_map(|(vm, boot, disks, networks, console, rtc, clock, (record, pair))| Config {
        vm,
        boot,
        disks,
        networks,
        console,
        rtc,
        clock,
        record,
        pair,
    });
    all.prop_filter(
        "a record has a card of its own, and heartbeats on the guest's card another path than the log's",
        |config| {
            let beats =
                config.pair.iter().flat_map(|pair| &pair.hosts).filter(|host| host.guest_address.is_some());
            let first = config.networks.iter().find_map(|n| n.card);
            let record = config
                .record
                .iter()
                .all(|record| config.networks.iter().all(|n| n.card != Some(record.card)));
            record && beats.into_iter().all(|host| first != Some(host.log_card))
        },
    )
    .prop_filter("heartbeats on the guest's card need one", |config| {
        let beats = config.pair.as_ref().is_some_and(|pair| pair.hosts[0].guest_address.is_some());
        // The other path's network must not be the log's.
        let apart = |pair: &Pair| !pair.hosts[0].log_address.reaches([192, 168, 1, 1]);
        !beats || config.networks.iter().any(|n| n.card.is_some()) && config.pair.as_ref().is_none_or(apart)
    })
}

/// Pieces that look like a configuration, so that random texts get beyond the first line.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("[vm]\n"),
        Just("[boot]\n"),
        Just("[[disk]]\n"),
        Just("[[network]]\n"),
        Just("[[boot.module]]\n"),
        Just("name = "),
        Just("memory = "),
        Just("kernel = "),
        Just("size = "),
        Just("mac = "),
        Just("start = "),
        Just("rate = "),
        Just("[record]\n"),
        Just("address = '10.77.0.1/24'\n"),
        Just("peer = '10.77.0.2:5405'\n"),
        Just("[pair]\n"),
        Just("[pair.a]\n"),
        Just("[pair.arbiter]\n"),
        Just("key = "),
        Just("log-address = '10.77.0.1/24'\n"),
        Just("'0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'\n"),
        Just("seed = "),
        Just("\"64M\"\n"),
        Just("\"a\"\n"),
        Just("'52:54:00:00:00:01'\n"),
        Just("2026-01-31T23:59:60Z\n"),
        Just("0x_1\n"),
        Just("-9223372036854775809\n"),
        Just("1e400\n"),
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just("\"\"\""),
        Just("\\u"),
        Just("\n"),
    ];
    proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Err(error) = Config::parse_bytes(&bytes) {
            prop_assert!(error.line >= 1 && error.column >= 1 && !error.to_string().is_empty());
        }
    }

    #[test]
    fn any_text_is_answered(text in "(?s).{0,200}") {
        let _ = Config::parse(&text);
    }

    #[test]
    fn any_puzzle_of_keys_and_values_is_answered_within_the_text(text in pieces()) {
        if let Err(error) = Config::parse(&text) {
            let lines = text.split('\n').count() as u32;
            prop_assert!(error.line <= lines, "line {} of {lines}: {text:?}", error.line);
        }
    }

    #[test]
    fn a_damaged_configuration_is_answered(config in config(), at in any::<proptest::sample::Index>(), byte: u8) {
        let mut bytes = config.text().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Config::parse_bytes(&bytes);
    }

    #[test]
    fn what_is_written_is_read_again(config in config()) {
        let text = config.text();
        prop_assert_eq!(Config::parse(&text).map_err(|error| format!("{error}\n{text}")), Ok(config));
    }
}
