//! What a configuration says, and what its errors say: whole texts in, values or messages out.

use vm_config::{
    Boot, Card, Clock, Config, Console, Cpu, Mac, Medium, Paging, PciAddress, Problem, Record, Role, RtcStart,
};

/// The least that is a configuration.
const LEAST: &str = "[vm]\nname = \"a\"\nmemory = \"64M\"\n[boot]\nkernel = \"vmlinuz\"\n";

/// Everything that a machine with a kernel can have.
const KERNEL: &str = r#"
# A web server.
[vm]
name = "web-1.example"
memory = "2G"
cpu = "x86-64-v4"
seed = 0x1234

[boot]
kernel = "vmlinuz"
initrd = "images/initrd.img"
command-line = "console=ttyS0 root=/dev/vda1 x=\"y z\""

[[disk]]
image = "web.img"
read-only = true
serial = "disk one"

[[disk]]
size = "64M"

[[network]]
mac = "52:54:00:12:34:56"
card = "00:03.0"
promiscuous = true

[[network]]
mac = "02:00:00:00:00:01"
card = "52:54:00:AA:bb:CC"

[[network]]
mac = "02:00:00:00:00:02"

[[network]]
mac = "02:00:00:00:00:03"
card = "none"

[console]
serial = false
virtio = true
escape = "ctrl-a"

[rtc]
start = "2026-01-31T12:00:00+01:30"

[clock]
follow = "instructions"
rate = 1000

[record]
card = "00:05.0"
address = "192.168.7.9/22"
peer = "192.168.4.1:65535"
paging = "fast"
checkpoint = 0
"#;

const FIRMWARE: &str = r#"
boot.firmware = "bios-256k.bin"
boot.disk = 1
vm = { name = "pc", memory = "512MiB" }
disk = [{ size = "1M" }, { image = "debian.img" }]
rtc.start = 1970-01-01T00:00:00Z
"#;

fn message(text: &str) -> String {
    Config::parse(text).expect_err("an error").to_string()
}

/// [`LEAST`] with more lines.
fn with(more: &str) -> String {
    format!("{LEAST}{more}")
}

#[test]
fn the_least_configuration_has_sensible_defaults() {
    let config = Config::parse(LEAST).expect("a configuration");
    assert_eq!(config.vm.memory.bytes, 64 << 20);
    assert_eq!((config.vm.cpu, config.vm.seed), (Cpu::V3, None));
    assert_eq!(config.console, Console { serial: true, virtio: false, escape: Some(0x1d) });
    assert_eq!((config.rtc, config.clock), (RtcStart::Host, Clock { follows_host: true, rate: None }));
    assert!(config.disks.is_empty() && config.networks.is_empty());
    assert!(config.record.is_none() && config.pair.is_none());
    let kernel = "vmlinuz".into();
    assert_eq!(
        config.boot,
        Boot::Kernel { kernel, initrd: None, command_line: String::new(), modules: vec![] }
    );
}

#[test]
fn everything_that_can_be_said_arrives() {
    let config = Config::parse(KERNEL).expect("a configuration");
    assert_eq!(
        (config.vm.name.as_str(), config.vm.cpu, config.vm.seed),
        ("web-1.example", Cpu::V4, Some(0x1234))
    );
    assert_eq!(config.disks[0].medium, Medium::Image("web.img".into()));
    assert_eq!((config.disks[0].read_only, config.disks[0].serial.as_deref()), (true, Some("disk one")));
    assert_eq!((&config.disks[1].medium, config.disks[1].read_only), (&Medium::Blank(64 << 20), false));
    let cards: Vec<_> = config.networks.iter().map(|network| network.card).collect();
    let place = PciAddress { bus: 0, device: 3, function: 0 };
    let permanent = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);
    assert_eq!(cards, [Some(Card::Pci(place)), Some(Card::Mac(permanent)), Some(Card::Index(2)), None]);
    assert_eq!(config.networks[0].mac, Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
    assert!(config.networks[0].promiscuous && !config.networks[1].promiscuous);
    assert_eq!(config.console, Console { serial: false, virtio: true, escape: Some(1) });
    // 2026-01-31T10:30:00Z.
    assert_eq!(config.rtc, RtcStart::Fixed(1_769_855_400));
    assert_eq!(config.clock, Clock { follows_host: false, rate: Some(1000) });
    let card = Card::Pci(PciAddress { bus: 0, device: 5, function: 0 });
    let record = Record {
        card,
        address: [192, 168, 7, 9],
        prefix: 22,
        peer: ([192, 168, 4, 1], 65_535),
        paging: Paging::Fast,
        checkpoint: 0,
    };
    assert_eq!(config.record, Some(record));
    let Boot::Kernel { command_line, .. } = &config.boot else { panic!("{:?}", config.boot) };
    assert_eq!(command_line, "console=ttyS0 root=/dev/vda1 x=\"y z\"");
    let files: Vec<_> = config.files().map(|file| (file.role, file.name)).collect();
    let expected =
        [(Role::Kernel, "vmlinuz"), (Role::Initrd, "images/initrd.img"), (Role::Disk(0), "web.img")];
    assert_eq!(files, expected);
}

#[test]
fn firmware_starts_from_a_disk() {
    let config = Config::parse(FIRMWARE).expect("a configuration");
    assert_eq!(config.boot, Boot::Firmware { firmware: "bios-256k.bin".into(), disk: 1 });
    assert_eq!((config.vm.memory.bytes, config.rtc), (512 << 20, RtcStart::Fixed(0)));
    let files: Vec<_> = config.files().map(|file| (file.role, file.name)).collect();
    assert_eq!(files, [(Role::Firmware, "bios-256k.bin"), (Role::Disk(1), "debian.img")]);
}

#[test]
fn modules_are_files_of_a_kernel() {
    let text =
        with("[[boot.module]]\nfile = \"m0\"\ncommand-line = \"one two\"\n[[boot.module]]\nfile = \"m1\"\n");
    let config = Config::parse(&text).expect("a configuration");
    let files: Vec<_> = config.files().map(|file| (file.role.to_string(), file.name)).collect();
    let names = ["boot.kernel", "boot.module[0].file", "boot.module[1].file"].map(String::from);
    assert_eq!(files, names.into_iter().zip(["vmlinuz", "m0", "m1"]).collect::<Vec<_>>());
}

/// Text, and what its error says: place, key, and what would be right.
const MESSAGES: &[(&str, &str)] = &[
    ("", "line 1, column 1: vm.name: missing; write, for example, `name = \"web\"`"),
    (
        "[vm]\nname = 'a'\nmemory = '64M'\n",
        "line 1, column 1: boot.kernel: missing; write, for example, `kernel = \"vmlinuz\", or firmware",
    ),
    ("[vm]\nname = \"a\"\n", "line 1, column 2: vm.memory: missing; write, for example, `memory = \"512M\"`"),
    ("[vm]\nmemory = \"64M\"\n", "line 1, column 2: vm.name: missing; write, for example, `name = \"web\"`"),
    ("[vm]\nname = 7\n", "line 2, column 8: vm.name: this is an integer; it must be a name of 1 to 64"),
    ("[vm]\nname = \"a b\"\n", "line 2, column 8: vm.name: `a b` is not a name of 1 to 64"),
    (
        "[vm]\nname = \"a\"\n\n  memory = \"12X\"",
        "line 4, column 12: vm.memory: `12X` is not an amount of memory",
    ),
    (
        "vm.name = 'a'\nvm.memory = \"3M\"",
        "line 2, column 13: vm.memory: `3M` is not an amount of memory from 4M",
    ),
    ("vm.name = 'a'\nvm.memory = \"65G\"", "line 2, column 13: vm.memory: `65G` is not an amount of memory"),
    ("vm.name = 'a'\nvm.memory = \"5M\"", "`5M` is not an amount of memory from 4M to 64G in steps of 2M"),
    ("vm.name = 'a'\nvm.memory = \"99999999999999999999G\"", "is not an amount of memory"),
    ("vm.name = 'a'\nvm.memory = 512", "this is an integer; it must be an amount of memory"),
    ("vm.name = 'a'\nvm.memory = 5.5", "this is a fraction; it must be an amount of memory"),
    ("[vm]\nmemori = \"64M\"\n", "line 2, column 1: vm.memori: unknown key; did you mean `memory`?"),
    ("[vm]\nzzz = 1\n", "line 2, column 1: vm.zzz: unknown key; known here: name, memory, cpu, seed"),
    ("[vms]\n", "line 1, column 2: vms: unknown key; did you mean `vm`?"),
    ("[virtual-machine]\n", "known here: vm, boot, disk, network, console, rtc, clock, record"),
    (
        "vm = {name = 'a', memory = '64M'}\n[boot]\ncommand_line = 'x'\n",
        "line 3, column 1: boot.command_line: unknown key; did you mean `command-line`?",
    ),
    ("vm = {name = 'a', memory = '64M'}\n[boot]\nCommandLine = 'x'\n", "did you mean `command-line`?"),
    ("vm = 3\n", "line 1, column 6: vm: this is an integer; it must be a table"),
    ("[vm]\nname = \"a\"\nname = \"b\"\n", "line 3, column 1: name: this is here twice; keep one"),
    ("[vm]\n[vm]\n", "line 2, column 2: vm: this is here twice; keep one"),
    ("[vm\n", "line 1, column 4: "),
    ("[vm]\nname = a\n", "line 2, column 8: "),
    ("[vm]\nname = \"a\n", "line 2, column "),
    (
        "disk = {}\n",
        "line 1, column 8: disk: this is a table; it must be an array of tables, with [[...]] before each",
    ),
    ("disk = [1]\n", "line 1, column 9: disk[0]: this is an integer; it must be a table"),
    ("[[disk]]\n", "disk[0].image: missing; write, for example, `image = \"disk.img\", or size = \"64M\"`"),
    (
        "[[disk]]\nsize='1M'\n[[disk]]\nsise='1M'\n",
        "line 4, column 1: disk[1].sise: unknown key; did you mean `size`?",
    ),
    ("[[disk]]\nsize = '1M'\nimage = 'a'\n", "disk[0].size: cannot stand beside `image`; keep one"),
    ("[[disk]]\nsize = '0M'\n", "`0M` is not a disk's size"),
    (
        "[[disk]]\nimage = 'my disk'\n",
        "disk[0].image: `my disk` is not a file name of 1 to 255 bytes without spaces",
    ),
    ("[[disk]]\nimage = ''\n", "`` is not a file name"),
    (
        "[[disk]]\nimage = 'a'\nread-only = 'yes'\n",
        "disk[0].read-only: this is a string; it must be true or false",
    ),
    ("[[disk]]\nimage = 'a'\nserial = '123456789012345678901'\n", "is not a serial number of 1 to 20"),
    ("[[disk]]\nimage = 'a'\nserial = \"\\u00e4\"\n", "is not a serial number"),
];

/// Lines after [`LEAST`], which has 5, and what their error says.
const MORE_MESSAGES: &[(&str, &str)] = &[
    ("firmware = 'b'", "line 6, column 1: boot.firmware: cannot stand beside `kernel`; keep one"),
    ("disk = 0", "line 6, column 1: boot.disk: cannot stand beside `kernel`; keep one"),
    ("initrd = 'i'\n[[boot.module]]\nfile = 'm'", "boot.initrd: cannot stand beside `module`; keep one"),
    ("[[boot.module]]", "boot.module[0].file: missing; write, for example, `file = \"program\"`"),
    (
        "command-line = \"a\\nb\"",
        "line 6, column 16: boot.command-line: `a\\nb` is not one line of at most 2047 bytes",
    ),
    (
        "[[network]]",
        "line 6, column 1: network[0].mac: missing; write, for example, `mac = \"52:54:00:12:34:56\"`",
    ),
    ("[[network]]\nmac = '52:54:00:12:34'", "is not one station's Ethernet address, such as"),
    (
        "[[network]]\nmac = '53:54:00:12:34:56'",
        "line 7, column 7: network[0].mac: `53:54:00:12:34:56` is not one",
    ),
    ("[[network]]\nmac = '00:00:00:00:00:00'", "is not one station's"),
    ("[[network]]\nmac = '02:0:00:00:00:000'", "is not one station's"),
    (
        "[[network]]\nmac = '02:00:00:00:00:01'\n[[network]]\nmac = '02:00:00:00:00:01'",
        "line 9, column 7: network[1].mac: `02:00:00:00:00:01` is not an address of its own",
    ),
    (
        "[[network]]\nmac = '02:00:00:00:00:01'\ncard = 'eth0'",
        "network[0].card: `eth0` is not a card of the host",
    ),
    ("[[network]]\nmac = '02:00:00:00:00:01'\ncard = -1", "`-1` is not a card of the host"),
    ("[[network]]\nmac = '02:00:00:00:00:01'\ncard = 256", "`256` is not a card of the host"),
    ("[[network]]\nmac = '02:00:00:00:00:01'\ncard = '00:20.0'", "`00:20.0` is not a card of the host"),
    ("[[network]]\nmac = '02:00:00:00:00:01'\ncard = '00:03.8'", "`00:03.8` is not a card of the host"),
    (
        "[console]\nescape = 'x'",
        "line 7, column 10: console.escape: `x` is not a control key, such as \"ctrl-]\"",
    ),
    ("[console]\nescape = 'ctrl-1'", "`ctrl-1` is not a control key"),
    (
        "[rtc]\nstart = 'today'",
        "line 7, column 9: rtc.start: `today` is not \"host\" or a time from 1970 to 2099",
    ),
    ("[rtc]\nstart = 2026-01-31", "`2026-01-31` is not \"host\" or a time"),
    ("[rtc]\nstart = 2026-01-31T12:00:00", "`2026-01-31T12:00:00` is not \"host\" or a time"),
    ("[rtc]\nstart = 2100-01-01T00:00:00Z", "is not \"host\" or a time from 1970 to 2099"),
    ("[rtc]\nstart = 1970-01-01T00:00:00+01:00", "is not \"host\" or a time from 1970 to 2099"),
    ("[rtc]\nstart = 7", "rtc.start: this is an integer; it must be \"host\" or a time"),
    ("[clock]\nfollow = 'stars'", "clock.follow: `stars` is not \"host\" or \"instructions\""),
    ("[clock]\nrate = 0", "clock.rate: `0` is not instructions per microsecond"),
    ("[clock]\nrate = 100001", "`100001` is not instructions per microsecond"),
    ("record = 1", "boot.record: unknown key"),
    (
        "[record]",
        "line 6, column 2: record.address: missing; write, for example, `address = \"10.77.0.1/24\"`",
    ),
    (
        "[record]\naddress = '10.77.0.1/24'",
        "line 6, column 2: record.peer: missing; write, for example, `peer = \"10.77.0.2:5405\"`",
    ),
    ("[record]\ncart = 1", "line 7, column 1: record.cart: unknown key; did you mean `card`?"),
    (
        "[record]\ncard = 'none'",
        "line 7, column 8: record.card: `none` is not a card of the host: its number",
    ),
    (
        "[[network]]\nmac = '02:00:00:00:00:01'\n[record]\ncard = 0",
        "line 9, column 8: record.card: `0` is not a card of its own: a [[network]] has it",
    ),
    (
        "[[network]]\nmac = '02:00:00:00:00:01'\ncard = 1\n[record]",
        "line 9, column 2: record.card: missing; write, for example, `card = ",
    ),
    (
        "[record]\naddress = '10.77.0.1'",
        "line 7, column 11: record.address: `10.77.0.1` is not one station's",
    ),
    ("[record]\naddress = '10.77.0.1/31'", "`10.77.0.1/31` is not one station's"),
    ("[record]\naddress = '10.77.0.1/0'", "`10.77.0.1/0` is not one station's"),
    ("[record]\naddress = '10.77.0.0/24'", "`10.77.0.0/24` is not one station's"),
    ("[record]\naddress = '10.77.0.255/24'", "`10.77.0.255/24` is not one station's"),
    ("[record]\naddress = '224.0.0.1/24'", "`224.0.0.1/24` is not one station's"),
    ("[record]\naddress = '127.0.0.1/8'", "`127.0.0.1/8` is not one station's"),
    ("[record]\naddress = '10.77.0.01/24'", "`10.77.0.01/24` is not one station's"),
    ("[record]\naddress = '10.77.0.256/24'", "`10.77.0.256/24` is not one station's"),
    ("[record]\naddress = '10.77.0.1.1/24'", "`10.77.0.1.1/24` is not one station's"),
    ("[record]\naddress = 10", "record.address: this is an integer; it must be one station's"),
];

/// Lines after [`LEAST`] and an address, which are 7, and what their error says.
const RECORD_MESSAGES: &[(&str, &str)] = &[
    (
        "peer = '10.77.0.2'",
        "line 8, column 8: record.peer: `10.77.0.2` is not another station's IPv4 address in",
    ),
    ("peer = '10.77.0.1:5405'", "`10.77.0.1:5405` is not another station's"),
    ("peer = '10.77.1.2:5405'", "`10.77.1.2:5405` is not another station's"),
    ("peer = '10.77.0.255:5405'", "`10.77.0.255:5405` is not another station's"),
    ("peer = '10.77.0.2:0'", "`10.77.0.2:0` is not another station's"),
    ("peer = '10.77.0.2:65536'", "`10.77.0.2:65536` is not another station's"),
    ("peer = '10.77.0.2:+5'", "`10.77.0.2:+5` is not another station's"),
    (
        "peer = '10.77.0.2:1'\npaging = 'slow'",
        "line 9, column 10: record.paging: `slow` is not \"strict\" or \"fast\"",
    ),
    (
        "peer = '10.77.0.2:1'\ncheckpoint = -1",
        "record.checkpoint: `-1` is not milliseconds between two checkpoints",
    ),
    ("peer = '10.77.0.2:1'\ncheckpoint = 3600001", "`3600001` is not milliseconds"),
    ("peer = '10.77.0.2:1'\ncheckpoint = '2s'", "this is a string; it must be milliseconds"),
];

#[test]
fn a_recorded_machine_has_sensible_defaults() {
    let network = "[[network]]\nmac = '02:00:00:00:00:01'\n";
    let text = with(&format!("{network}[record]\naddress = '10.77.0.1/24'\npeer = '10.77.0.2:5405'\n"));
    let record = Config::parse(&text).expect("a configuration").record.expect("a record");
    assert_eq!((record.card, record.paging, record.checkpoint), (Card::Index(1), Paging::Strict, 4_000));
    assert_eq!((record.address, record.prefix, record.peer), ([10, 77, 0, 1], 24, ([10, 77, 0, 2], 5405)));
}

#[test]
fn errors_say_where_which_key_and_what_would_be_right() {
    let more = MORE_MESSAGES.iter().map(|&(lines, part)| (with(lines), part));
    let recorded = |lines| with(&format!("[record]\naddress = '10.77.0.1/24'\n{lines}"));
    let record = RECORD_MESSAGES.iter().map(|&(lines, part)| (recorded(lines), part));
    let all = MESSAGES.iter().map(|&(text, part)| (text.to_string(), part)).chain(more).chain(record);
    let wrong = all.filter_map(|(text, part)| {
        let said = message(&text);
        (!said.contains(part)).then(|| format!("{text:?}\nsays:     {said}\nexpected: {part}\n"))
    });
    assert_eq!(wrong.collect::<String>(), "");
}

#[test]
fn firmware_needs_a_disk_and_no_kernel_things() {
    let start = "vm.name = 'a'\nvm.memory = '64M'\n";
    let lacks = message(&format!("{start}boot.firmware = 'b'\n"));
    assert!(lacks.contains("disk: missing; write, for example, `[[disk]]"), "{lacks}");
    let other = message(&format!("{start}disk = [{{ size = '1M' }}]\nboot.firmware = 'b'\nboot.disk = 1\n"));
    assert!(other.contains("boot.disk: `1` is not the number of a [[disk]], from 0"), "{other}");
    let line = message(&format!("{start}boot.firmware = 'b'\nboot.command-line = 'x'\n"));
    assert!(line.contains("line 4, column 6: boot.command-line: cannot stand beside `firmware`"), "{line}");
}

#[test]
fn columns_count_characters_and_the_first_error_of_the_text_is_told() {
    assert!(message("[vm]\n'äöü' = 1\n").starts_with("line 2, column 1: vm.äöü: unknown key"));
    assert!(message("vm = { 'ä' = 1 }\n").starts_with("line 1, column 8: "));
    assert!(message("[vm]\nb = 1\na = 2\n").starts_with("line 2, column 1: vm.b"), "by place, not by name");
}

#[test]
fn limits_hold_at_their_edges() {
    let disks = |count: usize| with(&"[[disk]]\nsize = \"1M\"\n".repeat(count));
    assert_eq!(Config::parse(&disks(8)).expect("8 disks").disks.len(), 8);
    let error = Config::parse(&disks(9)).expect_err("9 disks");
    assert_eq!((error.key.as_str(), error.problem), ("disk", Problem::TooMany { most: 8 }));
    assert_eq!(error.line, 6 + 2 * 8);
    let line = |length: usize| with(&format!("command-line = \"{}\"\n", "x".repeat(length)));
    assert!(Config::parse(&line(2047)).is_ok());
    let said = message(&line(2048));
    assert!(said.len() < 200, "a value is not repeated at length: {said}");
    let long = with(&"#".repeat(64 * 1024 + 1 - LEAST.len()));
    assert_eq!(Config::parse(&long).expect_err("too long").problem, Problem::TooLong);
    assert!(Config::parse(&long[..64 * 1024]).is_ok());
}

#[test]
fn nothing_takes_the_parser_deep_into_its_stack() {
    /// The kernel's boot stack has 64 KiB; this is for a build without optimization, whose frames are larger.
    const STACK: usize = 256 << 10;
    let nested = |open: &str, times| format!("x = {}", open.repeat(times));
    let texts = [
        (nested("[", 60_000), Some((1, 13))),
        (nested("{a = ", 12_000), Some((1, 45))),
        (nested("[", 8) + &"]".repeat(8), None),
        (nested("'[{' # ", 1) + &"[{".repeat(100), None),
        ("a.".repeat(30_000) + "a = 1", None),
        (format!("[{}a]", "a.".repeat(30_000)), None),
    ];
    for (text, place) in texts {
        let parse = move || Config::parse(&text).expect_err("no configuration");
        let error = std::thread::Builder::new().stack_size(STACK).spawn(parse).expect("a thread").join();
        let error = error.expect("an answer");
        let deep = (error.problem == Problem::TooDeep).then_some((error.line, error.column));
        assert_eq!(deep, place, "{error}");
    }
}

#[test]
fn bytes_that_are_no_text_are_told_by_place() {
    let error = Config::parse_bytes(b"[vm]\nname = \"\xff\"\n").expect_err("no UTF-8");
    assert_eq!((error.line, error.column, error.problem), (2, 9, Problem::NotUtf8));
    assert!(Config::parse_bytes(LEAST.as_bytes()).is_ok());
}

#[test]
fn times_agree_with_the_calendar() {
    for (text, seconds) in [
        ("1970-01-01T00:00:00Z", 0),
        ("1972-02-29T00:00:00Z", 68_169_600),
        ("2000-02-29T23:59:59Z", 951_868_799),
        ("2000-03-01T00:00:00Z", 951_868_800),
        ("2038-01-19T03:14:08Z", 1 << 31),
        ("2099-12-31T23:59:59Z", 4_102_444_799),
        ("2026-01-01T00:00:00-12:00", 1_767_268_800),
    ] {
        let config = Config::parse(&with(&format!("[rtc]\nstart = {text}\n"))).expect(text);
        assert_eq!(config.rtc, RtcStart::Fixed(seconds), "{text}");
    }
}

#[test]
fn the_documentation_tells_the_truth() {
    let text = include_str!("../../../docs/configuration.md");
    let examples: Vec<&str> =
        text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 3);
    for example in examples {
        Config::parse(example).unwrap_or_else(|error| panic!("{error}\n{example}"));
    }
    let vm = "[vm]\nname = \"a\"\n\n";
    let memory = message(&format!("{vm}memory = \"12X\"\n"));
    let key =
        message(&format!("{vm}memory = \"64M\"\n\n[boot]\nkernel = \"vmlinuz\"\n\ncommand_line = \"x\"\n"));
    for said in [memory, key] {
        assert!(text.contains(&format!("lockstep.toml: {said}\n")), "{said}");
    }
}
