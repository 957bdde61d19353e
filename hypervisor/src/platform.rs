//! The machine as its firmware describes it: ACPI tables read at boot and kept, PCI functions listed.

use crate::arch::{ioapic, percpu, physical};
use crate::events::{Event, Stage};
use crate::firmware::fadt::{self, PowerOff, Reset};
use crate::firmware::madt::Madt;
use crate::firmware::mcfg::{self, MAX_WINDOWS};
use crate::firmware::tables::{self, Tables};
use crate::hal::PciConfig;
use crate::network::{self, Cards, MAX_CARDS};
use crate::{console, machine_line};
use boot::memory_map::Range;
use boot::multiboot::BootInfo;
use core::fmt;
use heapless::Vec;
use log::LevelFilter;
use pci::ecam::Window;
use pci::{Function, HeaderKind};
use spin::Once;

/// Where a BIOS keeps the root pointer, in steps of 16 bytes (ACPI 6.5, 5.2.5.1).
const BIOS: Range = Range::new(0xE_0000, 0x10_0000);

/// What the firmware says.
#[derive(Clone, Debug, Default)]
pub struct Platform {
    /// Processors and interrupt controllers; `None` without a MADT.
    pub madt: Option<Madt>,
    /// PCI Express configuration space in memory.
    pub windows: Vec<Window, MAX_WINDOWS>,
    /// How to restart.
    pub reset: Option<Reset>,
    /// How to switch off.
    pub power_off: Option<PowerOff>,
}

static PLATFORM: Once<Platform> = Once::new();

/// PCI functions kept at most, for the shell and for who looks for a card; more are only counted.
pub const MAX_FUNCTIONS: usize = 64;

/// What the walk over PCI has found.
#[derive(Clone, Debug, Default)]
pub struct PciFound {
    /// The first functions, in the order of the walk.
    pub functions: Vec<Function, MAX_FUNCTIONS>,
    /// How many there are in all.
    pub count: usize,
    /// Their configuration space.
    pub config: PciConfig,
}

static PCI: Once<PciFound> = Once::new();

/// What the firmware says; nothing before [`read`].
pub fn get() -> Option<&'static Platform> {
    PLATFORM.get()
}

/// Reads the firmware's tables. A machine without them still runs, on one processor.
pub fn read(info: &BootInfo<'_>) -> &'static Platform {
    percpu::record(Event::Stage(Stage::Firmware));
    let platform = match tables(info) {
        Ok(tables) => convert(&tables),
        Err(e) => {
            log::warn!("{e}: one processor only, PCI through ports, no power-off");
            Platform::default()
        }
    };
    PLATFORM.call_once(|| platform)
}

fn tables(info: &BootInfo<'_>) -> Result<Tables<'static>, tables::Error> {
    let bios = || physical::read_only(BIOS).windows(36).step_by(16).find(|w| w.starts_with(b"RSD PTR "));
    let root = info.rsdp.or_else(bios).ok_or(tables::Error::BadRoot)?;
    if log::max_level() >= LevelFilter::Trace {
        dump(0, root);
    }
    Tables::read(root, &physical::firmware_bytes)
}

fn convert(tables: &Tables<'_>) -> Platform {
    let mut names = heapless::String::<{ 5 * tables::MAX_TABLES }>::new();
    for table in &tables.all {
        if log::max_level() >= LevelFilter::Trace {
            dump(table.address, table.bytes);
        }
        // Room for all is in the type.
        let _ = table.name().into_iter().chain([' ']).try_for_each(|c| names.push(c));
    }
    log::info!("ACPI tables: {names}({} skipped)", tables.skipped);
    let fadt = tables.find(b"FACP").map_or(&[][..], |t| t.bytes);
    let dsdt = tables.find(b"DSDT").map_or(&[][..], |t| t.bytes);
    let platform = Platform {
        madt: tables.find(b"APIC").and_then(|t| Madt::parse(t.bytes)),
        windows: tables.find(b"MCFG").map(|t| mcfg::parse(t.bytes)).unwrap_or_default(),
        reset: fadt::reset(fadt),
        power_off: fadt::power_off(fadt, dsdt),
    };
    match &platform.madt {
        None => log::warn!("no MADT: one processor only"),
        Some(m) => {
            log::info!(
                "MADT: {} processors, {} disabled ones skipped, {} I/O APICs",
                m.processors.len() + m.beyond,
                m.disabled,
                m.io_apics.len()
            );
            if m.cut {
                log::warn!("the MADT has an entry whose length cannot be; what comes after it is not known");
            }
        }
    }
    machine_line!(
        "acpi tables={} skipped={} cpus={} disabled={} ecam-windows={} reset={} power-off={}",
        tables.all.len(),
        tables.skipped,
        platform.madt.as_ref().map_or(0, |m| m.processors.len()),
        platform.madt.as_ref().map_or(0, |m| m.disabled),
        platform.windows.len(),
        u8::from(platform.reset.is_some()),
        u8::from(platform.power_off.is_some())
    );
    platform
}

/// Prints bytes in hexadecimal, for a recording that tests and bug reports can use. Address 0 is the root pointer.
fn dump(address: u64, bytes: &[u8]) {
    struct Hex<'a>(&'a [u8]);
    impl fmt::Display for Hex<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
        }
    }
    for (row, chunk) in bytes.chunks(64).enumerate() {
        machine_line!("acpi-bytes table={address:#x} offset={} hex={}", row * 64, Hex(chunk));
    }
}

/// Walks PCI, prints a table of its functions, and says what the network cards are.
pub fn list_pci(platform: &Platform) {
    percpu::record(Event::Stage(Stage::Pci));
    ioapic::init(platform.madt.as_ref());
    let mut config = match PciConfig::new(&platform.windows) {
        Ok(config) => config,
        Err(e) => {
            log::warn!("PCI configuration space in memory: {e}; ports are used");
            PciConfig::default()
        }
    };
    let mut segments: Vec<(u16, u8, u8), { MAX_WINDOWS + 1 }> =
        config.windows().iter().map(|w| (w.segment, w.first_bus, w.last_bus)).collect();
    if !segments.iter().any(|s| s.0 == 0) {
        // Room for it is in the type.
        let _ = segments.push((0, 0, 255));
    }
    console::print(format_args!("PCI        vendor:device class  revision kind\n"));
    let (mut count, mut functions) = (0, Vec::new());
    let mut cards = Cards::new();
    let mut found = |function: Function| {
        print_function(function);
        // More than MAX_FUNCTIONS: see there.
        let _ = functions.push(function);
        if function.class.is_ethernet() && cards.push(function).is_err() {
            log::warn!("network card {} is left alone: more than {MAX_CARDS}", function.address);
        }
    };
    for (segment, first, last) in segments {
        count += pci::walk(&config, segment, first, last, &mut found).functions;
    }
    let access = if config.windows().is_empty() { "ports" } else { "ecam" };
    log::info!("PCI: {count} functions ({access})");
    machine_line!("pci functions={count} access={access}");
    network::report(&mut config, &cards);
    PCI.call_once(|| PciFound { functions, count, config });
}

/// What [`list_pci`] has found; nothing before it.
pub fn pci() -> Option<&'static PciFound> {
    PCI.get()
}

/// Tells what the walk over PCI has found.
///
/// # Errors
/// Those of the sink.
pub fn tell_pci(out: &mut dyn fmt::Write) -> fmt::Result {
    let Some(found) = pci() else { return writeln!(out, "PCI has not been looked at") };
    writeln!(out, "PCI        vendor:device class  revision interrupt kind")?;
    for f in &found.functions {
        let pin = match f.interrupt_pin {
            pin @ 1..=4 => char::from(b'A' - 1 + pin),
            _ => '-',
        };
        writeln!(
            out,
            "{:12} {:04x}:{:04x}   {} {:02x}       {pin} {:>3}     {}",
            f.address,
            f.vendor,
            f.device,
            f.class,
            f.revision,
            f.interrupt_line,
            kind(f)
        )?;
    }
    let more = found.count.saturating_sub(found.functions.len());
    if more > 0 { writeln!(out, "and {more} more") } else { Ok(()) }
}

/// What a function is, for people.
fn kind(function: &Function) -> &'static str {
    match function.kind {
        HeaderKind::Endpoint { .. } if function.class.is_ethernet() => "network controller",
        HeaderKind::Endpoint { .. } if function.class.is_nvme() => "NVMe controller",
        HeaderKind::Endpoint { .. } => "endpoint",
        HeaderKind::PciBridge(_) => "bridge",
        HeaderKind::CardBusBridge => "CardBus bridge",
        HeaderKind::Unknown(_) => "unknown header",
    }
}

fn print_function(function: Function) {
    let kind = kind(&function);
    console::print(format_args!(
        "{:12} {:04x}:{:04x}   {} {:02x}       {kind}\n",
        function.address, function.vendor, function.device, function.class, function.revision
    ));
    machine_line!(
        "pci-function address={} vendor={:04x} device={:04x} class={}",
        function.address,
        function.vendor,
        function.device,
        function.class
    );
}

/// The APIC identifiers of all processors that can be used.
pub fn processors(platform: &Platform) -> impl Iterator<Item = u32> {
    platform.madt.iter().flat_map(|m| m.processors.iter().copied())
}
