//! Each section of the text, read into the configuration.

use alloc::string::String;
use alloc::vec::Vec;

use toml::de::{DeTable, DeValue};
use toml_parser::Source;
use toml_parser::lexer::TokenKind;

use crate::config::{
    Boot, Card, Clock, Config, Console, Cpu, Disk, Medium, Module, Network, Paging, Record, RtcStart, Vm,
};
use crate::error::{Error, Problem};
use crate::limits;
use crate::pair_section::pair;
use crate::reader::{Table, Text, Value, position};
use crate::values::{Mac, Memory, control_key, ipv4_with_port, ipv4_with_prefix, seconds};

const SECTIONS: &[&str] = &["vm", "boot", "disk", "network", "console", "rtc", "clock", "record", "pair"];
const VM: &[&str] = &["name", "memory", "cpu", "seed"];
const BOOT: &[&str] = &["kernel", "initrd", "command-line", "module", "firmware", "disk"];
const MODULE: &[&str] = &["file", "command-line"];
const DISK: &[&str] = &["image", "size", "read-only", "serial"];
const NETWORK: &[&str] = &["mac", "card", "promiscuous"];
const CONSOLE: &[&str] = &["serial", "virtio", "escape"];
const RTC: &[&str] = &["start"];
const CLOCK: &[&str] = &["follow", "rate"];
const RECORD: &[&str] = &["card", "address", "peer", "paging", "checkpoint"];

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > limits::TEXT {
            return Err(Error { line: 1, column: 1, key: String::new(), problem: Problem::TooLong });
        }
        let source = Text(text);
        check_nesting(source)?;
        let tree = DeTable::parse(text).map_err(|error| syntax(source, &error))?;
        let document = Table::document(source, tree.get_ref(), SECTIONS)?;
        let disks = disks(&document)?;
        let networks = networks(&document)?;
        let vm = vm(&document)?;
        Ok(Self {
            pair: pair(&document, &vm.name, &networks)?,
            vm,
            boot: boot(&document, disks.len())?,
            disks,
            console: console(&document)?,
            rtc: rtc(&document)?,
            clock: clock(&document)?,
            record: record(&document, &networks)?,
            networks,
        })
    }

    /// Reads a configuration from the bytes of a module or file.
    ///
    /// # Errors
    /// As [`Config::parse`], or that the bytes are not UTF-8.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let text = core::str::from_utf8(bytes).map_err(|error| {
            let (line, column) = position(bytes, error.valid_up_to());
            Error { line, column, key: String::new(), problem: Problem::NotUtf8 }
        })?;
        Self::parse(text)
    }
}

/// Refuses what would take the parser too deep into its stack. Strings and comments are single tokens.
fn check_nesting(text: Text<'_>) -> Result<(), Error> {
    let mut depth = 0usize;
    for token in Source::new(text.0).lex() {
        match token.kind() {
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => depth += 1,
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > limits::NESTING {
            return Err(text.error(token.span().start(), String::new(), Problem::TooDeep));
        }
    }
    Ok(())
}

/// What the TOML parser says, with the key that it means.
fn syntax(text: Text<'_>, error: &toml::de::Error) -> Error {
    let span = error.span().unwrap_or(0..0);
    if !error.message().starts_with("duplicate key") {
        return text.error(span.start, String::new(), Problem::Syntax(error.message().into()));
    }
    let key = text.0.get(span.clone()).unwrap_or_default();
    text.error(span.start, key.into(), Problem::Duplicate)
}

fn vm(document: &Table<'_, '_>) -> Result<Vm, Error> {
    const NAME: &str = "a name of 1 to 64 letters, digits, `.`, `_` and `-`";
    const MEMORY: &str = "an amount of memory from 4M to 64G in steps of 2M, such as \"512M\" or \"2G\"";
    const CPU: &str = "one of \"x86-64-v2\", \"x86-64-v3\", \"x86-64-v4\"";
    const SEED: &str = "a whole number from 0 to 9223372036854775807";
    let table = document.table("vm", VM)?;
    let name = table.required("name", "name = \"web\"")?.parsed(NAME, name)?;
    let memory = table.required("memory", "memory = \"512M\"")?.parsed(MEMORY, memory)?;
    let cpu = table.get("cpu").map_or(Ok(Cpu::default()), |value| value.parsed(CPU, Cpu::parse))?;
    let seed = table.get("seed").map(|value| value.integer(0..1 << 63, SEED)).transpose()?;
    Ok(Vm { name, memory, cpu, seed })
}

/// What is a name.
pub fn name(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    ((1..=limits::NAME).contains(&text.len()) && text.bytes().all(plain)).then(|| text.into())
}

fn memory(text: &str) -> Option<Memory> {
    let range = limits::MEMORY_LEAST..=limits::MEMORY_MOST;
    Memory::parse(text)
        .filter(|memory| range.contains(&memory.bytes) && memory.bytes % limits::MEMORY_UNIT == 0)
}

/// A file's name: what can stand in a boot loader's script unquoted, so that module and file have one name.
fn file(value: &Value<'_, '_>) -> Result<String, Error> {
    const FILE: &str =
        "a file name of 1 to 255 bytes without spaces, quotes, `\\`, `$` and control characters";
    value.parsed(FILE, |text| {
        let plain = |c: char| !(c.is_whitespace() || c.is_control() || "\"'\\$".contains(c));
        ((1..=limits::FILE_NAME).contains(&text.len()) && text.chars().all(plain)).then(|| text.into())
    })
}

/// A command line; empty when it is not there.
fn command_line(table: &Table<'_, '_>) -> Result<String, Error> {
    const LINE: &str = "one line of at most 2047 bytes";
    table.get("command-line").map_or(Ok(String::new()), |value| {
        value.parsed(LINE, |text| {
            let plain = text.len() <= limits::COMMAND_LINE && !text.chars().any(char::is_control);
            plain.then(|| text.into())
        })
    })
}

fn boot(document: &Table<'_, '_>, disks: usize) -> Result<Boot, Error> {
    let table = document.table("boot", BOOT)?;
    match (table.get("firmware"), table.get("kernel")) {
        (Some(value), None) => firmware(&table, &value, disks),
        (None, Some(value)) => kernel(&table, &value),
        (Some(value), Some(_)) => Err(value.conflict("kernel")),
        (None, None) => Err(table.missing("kernel", "kernel = \"vmlinuz\", or firmware = \"bios-256k.bin\"")),
    }
}

fn kernel(table: &Table<'_, '_>, kernel: &Value<'_, '_>) -> Result<Boot, Error> {
    if let Some(value) = table.get("disk") {
        return Err(value.conflict("kernel"));
    }
    let initrd = table.get("initrd");
    let modules = table.tables("module", limits::MODULES, MODULE)?;
    if let (Some(value), Some(_)) = (&initrd, modules.first()) {
        return Err(value.conflict("module"));
    }
    let module = |table: &Table<'_, '_>| {
        let file = file(&table.required("file", "file = \"program\"")?)?;
        Ok(Module { file, command_line: command_line(table)? })
    };
    Ok(Boot::Kernel {
        kernel: file(kernel)?,
        initrd: initrd.map(|value| file(&value)).transpose()?,
        command_line: command_line(table)?,
        modules: modules.iter().map(module).collect::<Result<_, Error>>()?,
    })
}

fn firmware(table: &Table<'_, '_>, firmware: &Value<'_, '_>, disks: usize) -> Result<Boot, Error> {
    if let Some(value) = ["initrd", "command-line", "module"].into_iter().find_map(|key| table.get(key)) {
        return Err(value.conflict("firmware"));
    }
    let firmware = file(firmware)?;
    if disks == 0 {
        return Err(document_lacks_a_disk(table));
    }
    const DISK: &str = "the number of a [[disk]], from 0";
    let disk = table.get("disk").map_or(Ok(0), |value| value.integer(0..disks as u64, DISK))?;
    Ok(Boot::Firmware { firmware, disk: disk as usize })
}

/// Firmware needs something to start from.
fn document_lacks_a_disk(table: &Table<'_, '_>) -> Error {
    let mut error = table.missing("disk", "[[disk]] with image = \"disk.img\": firmware starts from a disk");
    error.key = "disk".into();
    error
}

fn disks(document: &Table<'_, '_>) -> Result<Vec<Disk>, Error> {
    document.tables("disk", limits::DISKS, DISK)?.iter().map(disk).collect()
}

fn disk(table: &Table<'_, '_>) -> Result<Disk, Error> {
    const SIZE: &str = "a disk's size from 1K to 64G, such as \"64M\"";
    const SERIAL: &str = "a serial number of 1 to 20 printable ASCII characters";
    let medium = match (table.get("image"), table.get("size")) {
        (Some(value), None) => Medium::Image(file(&value)?),
        (None, Some(value)) => Medium::Blank(value.parsed(SIZE, |text| {
            let bytes = Memory::parse(text)?.bytes;
            (1..=limits::DISK_MOST).contains(&bytes).then_some(bytes)
        })?),
        (Some(_), Some(value)) => return Err(value.conflict("image")),
        (None, None) => return Err(table.missing("image", "image = \"disk.img\", or size = \"64M\"")),
    };
    let serial = table.get("serial").map(|value| {
        value.parsed(SERIAL, |text| {
            let plain = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
            ((1..=limits::DISK_SERIAL).contains(&text.len()) && plain).then(|| text.into())
        })
    });
    Ok(Disk { medium, read_only: flag(table, "read-only", false)?, serial: serial.transpose()? })
}

/// True or false, with a default.
fn flag(table: &Table<'_, '_>, key: &str, default: bool) -> Result<bool, Error> {
    table.get(key).map_or(Ok(default), |value| value.boolean())
}

fn networks(document: &Table<'_, '_>) -> Result<Vec<Network>, Error> {
    const OTHER: &str = "an address of its own: another [[network]] has it";
    let tables = document.tables("network", limits::NETWORKS, NETWORK)?;
    let mut networks = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        let new = network(table, index)?;
        if networks.iter().any(|old: &Network| old.mac == new.mac) {
            return Err(table.required("mac", "")?.wrong(OTHER));
        }
        networks.push(new);
    }
    Ok(networks)
}

fn network(table: &Table<'_, '_>, index: usize) -> Result<Network, Error> {
    const MAC: &str = "one station's Ethernet address, such as \"52:54:00:12:34:56\"";
    const CARD: &str =
        "a card of the host: its number from 0, its PCI address \"00:03.0\", its MAC, or \"none\"";
    let mac = table.required("mac", "mac = \"52:54:00:12:34:56\"")?;
    let mac = mac.parsed(MAC, |text| Mac::parse(text).filter(|mac| mac.is_station()))?;
    let card = match table.get("card") {
        None => Some(Card::Index(index as u8)),
        Some(value) if value.as_str() == Some("none") => None,
        Some(value) => Some(card(&value, CARD)?),
    };
    Ok(Network { mac, card, promiscuous: flag(table, "promiscuous", false)? })
}

/// A card of the host.
pub fn card(value: &Value<'_, '_>, wanted: &'static str) -> Result<Card, Error> {
    match value.raw() {
        DeValue::Integer(_) => Ok(Card::Index(value.integer(0..256, wanted)? as u8)),
        _ => value.parsed(wanted, Card::parse),
    }
}

fn console(document: &Table<'_, '_>) -> Result<Console, Error> {
    const KEY: &str = "a control key, such as \"ctrl-]\", or \"none\"";
    let table = document.table("console", CONSOLE)?;
    let default = Console::default();
    let escape = match table.get("escape") {
        None => default.escape,
        Some(value) if value.as_str() == Some("none") => None,
        Some(value) => Some(value.parsed(KEY, control_key)?),
    };
    Ok(Console {
        serial: flag(&table, "serial", default.serial)?,
        virtio: flag(&table, "virtio", default.virtio)?,
        escape,
    })
}

fn rtc(document: &Table<'_, '_>) -> Result<RtcStart, Error> {
    const START: &str = "\"host\" or a time from 1970 to 2099, such as \"2026-01-31T12:00:00Z\"";
    let table = document.table("rtc", RTC)?;
    let Some(value) = table.get("start") else { return Ok(RtcStart::default()) };
    let time = match value.raw() {
        DeValue::Datetime(time) => seconds(time),
        DeValue::String(text) if text == "host" => return Ok(RtcStart::Host),
        DeValue::String(text) => text.parse().ok().and_then(|time| seconds(&time)),
        _ => return Err(value.wrong_type(START)),
    };
    time.map(RtcStart::Fixed).ok_or_else(|| value.wrong(START))
}

fn clock(document: &Table<'_, '_>) -> Result<Clock, Error> {
    const FOLLOW: &str = "\"host\" or \"instructions\"";
    const RATE: &str = "instructions per microsecond, a whole number from 1 to 100000";
    let table = document.table("clock", CLOCK)?;
    let follows_host = table.get("follow").map_or(Ok(true), |value| {
        value.parsed(FOLLOW, |text| match text {
            "host" => Some(true),
            "instructions" => Some(false),
            _ => None,
        })
    })?;
    let rate = table.get("rate").map(|value| value.integer(1..limits::CLOCK_RATE + 1, RATE)).transpose()?;
    Ok(Clock { follows_host, rate })
}

fn record(document: &Table<'_, '_>, networks: &[Network]) -> Result<Option<Record>, Error> {
    const CARD: &str = "a card of the host: its number from 0, its PCI address \"00:03.0\", or its MAC";
    const OWN: &str = "a card of its own: a [[network]] has it";
    const ADDRESS: &str =
        "one station's IPv4 address with the bits of its network (1 to 30), such as \"10.77.0.1/24\"";
    const PEER: &str = "another station's IPv4 address in the network of `address`, with a TCP port, such as \"10.77.0.2:5405\"";
    const PAGING: &str = "\"strict\" or \"fast\"";
    const CHECKPOINT: &str = "milliseconds between two checkpoints, from 0 (none) to 3600000";
    if document.get("record").is_none() {
        return Ok(None);
    }
    let table = document.table("record", RECORD)?;
    let own = match table.get("card") {
        None => Card::Index(networks.len() as u8),
        Some(value) => card(&value, CARD)?,
    };
    if networks.iter().any(|network| network.card == Some(own)) {
        return Err(match table.get("card") {
            None => table.missing("card", "card = \"00:04.0\""),
            Some(value) => value.wrong(OWN),
        });
    }
    let address = table.required("address", "address = \"10.77.0.1/24\"")?;
    let (address, prefix) = address.parsed(ADDRESS, ipv4_with_prefix)?;
    let peer = table.required("peer", "peer = \"10.77.0.2:5405\"")?.parsed(PEER, |text| {
        ipv4_with_port(text).filter(|(peer, _)| {
            *peer != address && peer.network(prefix) == address.network(prefix) && peer.is_host(prefix)
        })
    })?;
    let paging =
        table.get("paging").map_or(Ok(Paging::default()), |value| value.parsed(PAGING, Paging::parse))?;
    let checkpoint = table.get("checkpoint").map_or(Ok(u64::from(limits::CHECKPOINT_DEFAULT)), |value| {
        value.integer(0..u64::from(limits::CHECKPOINT) + 1, CHECKPOINT)
    })?;
    Ok(Some(Record {
        card: own,
        address: address.0,
        prefix,
        peer: (peer.0.0, peer.1),
        paging,
        checkpoint: checkpoint as u32,
    }))
}
